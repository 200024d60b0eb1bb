"""Which repairs there are, and their exact commands: told, never done. Pure.

Nothing here knows which node's copy is right: two different blocks do not say. What decides the direction of DRBD's
own resync was read in its source, drbd_receiver.c and drbd_nl.c:

- 8.4: after a disconnect the node that was Primary has a new identifier (drbd_state.c, lost_contact_to_peer_data),
  and the other, if it was Secondary, has the former one: on connect drbd_uuid_compare() makes the first the source,
  and the blocks that a verify has marked are copied. If both were Primary both have new ones: a split brain. If none
  was, they are equal: "No resync, but N bits in bitmap", and nothing is copied.
- 9: with equal identifiers the marks are dropped, and whether a disconnect makes a new one depends on what was
  written meanwhile. Since 9.0.29 `invalidate --reset-bitmap=no` copies the marked blocks from the other node
  (L_WF_BITMAP_T), whatever the identifiers are.
- `invalidate` makes the node it is run on the target of a full resync, on both.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from pvedrbdstor.drbd.generation import Generation
from pvedrbdstor.verify.harm import Harm
from pvedrbdstor.verify.meaning import Found, Meaning

_FILES_MAX = 10
_DATA = (Harm.METADATA, Harm.RUNNING, Harm.GUEST, Harm.SNAPSHOT, Harm.UNKNOWN, Harm.CONTENT)
_OF_IMAGES = (Harm.RUNNING, Harm.GUEST, Harm.UNKNOWN)
_REWRITE_MAX = 4


@dataclass(frozen=True, slots=True)
class Mirror:
    """What the commands name. generation: of DRBD; verify_alg: whether one is set, without which DRBD cannot mark
    blocks."""

    storage: str
    path: str
    resource: str
    volume: int = 0
    generation: Generation = Generation.V8_4
    verify_alg: bool = True


@dataclass(frozen=True, slots=True)
class Reach:
    """How far the search went. short: why more may differ than what was found, a sentence without its end; None where
    all was compared that was to be. exact: whether each file's differing blocks are all known."""

    short: str | None = None
    exact: bool = True


ALL = Reach()


@dataclass(frozen=True, slots=True)
class Repair:
    """title: what it does. text: when, and what it costs. commands: in their order, with a word on where each is run."""

    title: str
    text: str
    commands: tuple[tuple[str, str], ...] = ()


def repairs(meaning: Meaning, mirror: Mirror, reach: Reach = ALL) -> tuple[Repair, ...]:
    """The ones that make sense for what was found, those for all of it first; none where nothing was."""
    return tuple(_repairs(meaning, mirror, reach)) if meaning.found else ()


def _repairs(meaning: Meaning, mirror: Mirror, reach: Reach) -> Iterator[Repair]:
    data = any(meaning.of(*_DATA))
    if reach.short is not None and not (data and reach.exact):
        yield _compare_the_rest(mirror, reach.short, data=data)
    elif not data:
        yield _nothing(meaning, mirror)
    if data:
        if any(meaning.of(Harm.METADATA)):
            yield _look_at_metadata(mirror)
        yield _marked(mirror)
        yield _full(mirror)
    yield from _of_guests(meaning, mirror, exact=reach.exact)
    yield from _of_files(meaning, mirror)


def _nothing(meaning: Meaning, mirror: Mirror) -> Repair:
    if any(meaning.of(Harm.IN_FLIGHT)):
        return Repair(
            "See whether it is written again",
            "What a program changed while it was written is the same on both nodes as soon as it is written again. Check again in a day; what "
            "still differs then is not used by it any more, or was damaged by something else: have the guest look at it.",
            (_again(mirror),),
        )
    if not any(meaning.of(Harm.WORK, Harm.SWAP)):
        return Repair(
            "Nothing has to be done", "Nobody reads what differs. A later check finds it again until it is written."
        )
    return Repair(
        "Nothing has to be done now",
        "What differs is swap or unfinished work. It is gone when the guest has been restarted, or what is left "
        "over has been removed.",
    )


def _compare_the_rest(mirror: Mirror, short: str, *, data: bool) -> Repair:
    """What was found says nothing of the rest; free space is left out, so that much of it ends no search again."""
    found = "What is told above is not all" if data else "That what was found is harmless says nothing of the rest"
    less = " What goes by the blocks of a single file (dd, a rollback) is only offered after that." if data else ""
    return Repair(
        "Find out what else differs",
        f"{short}: the rest is not known. {found}. The check leaves free space out, and all else is compared.{less}",
        (("on either node", f"pvedrbdstor verify {mirror.storage} --mode allocated"),),
    )


def _name(mirror: Mirror) -> str:
    return f"{mirror.resource}/{mirror.volume}"


def _again(mirror: Mirror) -> tuple[str, str]:
    """The end of each repair. Free space is left out: what is freed meanwhile may differ for ever."""
    return "to check again, on either node", f"pvedrbdstor verify {mirror.storage} --mode allocated"


def _look_at_metadata(mirror: Mirror) -> Repair:
    return Repair(
        "See which node's copy of the metadata is sound",
        "It only reads. While the storage is mounted it may tell of damage that is none, as a part of the truth is "
        "in memory: what both nodes tell does not count, what only one tells does. The heartbeat and the journals "
        "differ in nothing that matters.",
        (("on each node", f"fsck.ocfs2 -fn /dev/drbd/by-res/{mirror.resource}/{mirror.volume}"),),
    )


def _marked(mirror: Mirror) -> Repair:
    wrong, right = "on the node whose copy is wrong", "on the other node"
    if not mirror.verify_alg:
        return Repair(
            "Let DRBD copy the blocks that differ",
            "It cannot as it is configured: `verify-alg` is not set, so DRBD cannot compare and mark blocks. Set it "
            "in the resource's net section on both nodes (`verify-alg crc32c;`), run the command, and check again.",
            (("on both nodes", f"drbdadm adjust {mirror.resource}"), _again(mirror)),
        )
    begin = (
        (wrong, "move or stop all its guests (qm migrate, qm shutdown; pct migrate, pct shutdown)"),
        (right, f"pvedrbdstor verify {mirror.storage} --mode kernel   # from the beginning; hours"),
    )
    up = (wrong, f"pvedrbdstor mirror up {mirror.storage}")
    if mirror.generation is Generation.V9:
        commands: tuple[tuple[str, str], ...] = (
            *begin,
            (wrong, f"pvedrbdstor mirror down {mirror.storage}"),
            (wrong, f"drbdadm invalidate --reset-bitmap=no {_name(mirror)}"),
            (wrong, f"drbdadm status {mirror.resource}   # until both are UpToDate again"),
            up,
            _again(mirror),
        )
        text = (
            "The verify marks the blocks that differ, and only those are copied, to the node where the last commands "
            "are run: the direction is yours to choose, and cannot be taken back. Needs DRBD 9.0.29 and drbd-utils "
            "9.17. DRBD 9 may skip blocks that were busy during its verify: check again afterwards. Do not "
            "disconnect and connect instead: DRBD 9 may drop the marks."
        )
    else:
        commands = (*begin, (wrong, f"pvedrbdstor mirror down {mirror.storage} --stop"), up, _again(mirror))
        text = (
            "The verify marks the blocks that differ, and only those are copied: from the node that has stayed "
            "Primary, with the storage mounted, to the one that went down and connects anew. So the one whose copy "
            "is wrong goes down, and the other one stays up: were both down, nothing would be copied, and a mere "
            "'drbdadm disconnect' while both have it mounted is a split brain. It cannot be taken back."
        )
    return Repair("Let DRBD copy the blocks that differ", text, commands)


def _full(mirror: Mirror) -> Repair:
    wrong = "on the node whose copy is wrong"
    return Repair(
        "Let DRBD copy everything",
        "Where much differs, or nobody trusts that disk any more. While it runs the other node has the only good "
        "copy. It cannot be taken back.",
        (
            (wrong, "move or stop all its guests"),
            (wrong, f"pvedrbdstor mirror down {mirror.storage}"),
            (wrong, f"drbdadm invalidate {_name(mirror)}"),
            (wrong, f"drbdadm status {mirror.resource}   # until both are UpToDate again"),
            (wrong, f"pvedrbdstor mirror up {mirror.storage}"),
            _again(mirror),
        ),
    )


def _of_guests(meaning: Meaning, mirror: Mirror, *, exact: bool) -> Iterator[Repair]:
    images = list(meaning.of(*_OF_IMAGES))
    if not images:
        return
    yield Repair(
        "Let the guest write it anew",
        "What is written goes to both nodes, and then is the same on both. Run the guest on the node whose copy is "
        "right and look for damage with its own tools: a check of its file system (xfs_repair -n, e2fsck -fn, "
        "chkdsk), of its packages (debsums, rpm -Va), of its database. What is sound there is made equal by writing "
        "it again, such as a copy of a file in place of it; what is not comes from a backup.",
        (_again(mirror),),
    )
    if not exact:
        return
    stopped = [found for found in images if found.parts and _surely_off(found)]
    yield from (_rewrite(found, mirror) for found in _files(stopped))
    yield from (_rollback(found, mirror) for found in _files([found for found in images if found.intact]))


def _surely_off(found: Found) -> bool:
    """Whatever the harm is: data of unknown kind may be those of a guest that runs, or of one that nobody knows."""
    return found.guest is not None and not found.guest.runs


def _files(found: list[Found]) -> list[Found]:
    """The first of each file, not of too many."""
    first: dict[str, Found] = {}
    for one in found:
        first.setdefault(one.path, one)
    return list(first.values())[:_FILES_MAX]


def _rewrite(found: Found, mirror: Mirror) -> Repair:
    file = shlex.quote(f"{mirror.path}/{found.path}")
    node = "on the node whose copy is right, with the guest stopped"
    tool = "pct" if found.guest is not None and found.guest.kind == "CT" else "qm"
    writes = tuple(
        (
            node,
            f"dd if={file} of={file} bs=4096 iflag=direct,skip_bytes,count_bytes oflag=direct,seek_bytes "
            f"conv=notrunc skip={part.offset // 4096 * 4096} seek={part.offset // 4096 * 4096} "
            f"count={-(-(part.offset % 4096 + part.length) // 4096) * 4096}",
        )
        for part in found.parts[:_REWRITE_MAX]
    )
    commands = (
        (node, f"{tool} status {found.vmid}   # must say 'stopped', whatever it was before"),
        *writes,
        _again(mirror),
    )
    more = found.count - len(writes)
    text = (
        f"Reads what differs in {found.path} as this node has it, and writes the same again, to both nodes. A guest "
        "that runs meanwhile would lose what it writes there, so it must not. Other files that share the blocks "
        "keep them as they are."
    )
    return Repair(
        "Make both copies of an image's blocks that of one node",
        text + (f" {more} more places are not named here." if more else ""),
        commands,
    )


def _rollback(found: Found, mirror: Mirror) -> Repair:
    kind = found.guest.kind if found.guest is not None else None
    tools = {"VM": ("qm",), "CT": ("pct",)}.get(kind or "", ("qm", "pct"))
    snapshot = found.intact[-1]
    commands = tuple(
        (
            "on the guest's node" + ("" if len(tools) == 1 else ", for a VM" if tool == "qm" else ", for a container"),
            f"{tool} rollback {found.vmid} {shlex.quote(snapshot)}",
        )
        for tool in tools
    )
    volid = shlex.quote(f"{mirror.storage}:{'/'.join(found.path.split('/')[-2:])}")
    alone = (
        "or this disk alone, with the guest stopped",
        f"pvedrbdstor volume snapshot rollback {volid} {shlex.quote(snapshot)}",
    )
    return Repair(
        "Go back to a snapshot that has blocks of its own there",
        f"Of {found.path} these snapshots have none of the blocks that differ: {', '.join(found.intact)}. Everything "
        "that the guest has written since then is lost, by the first command on all its disks: make a backup first.",
        (*commands, alone, _again(mirror)),
    )


def _of_files(meaning: Meaning, mirror: Mirror) -> Iterator[Repair]:
    content = _files(list(meaning.of(Harm.CONTENT)))
    if content:
        names = tuple(
            ("on each node, to compare", f"sha256sum {shlex.quote(f'{mirror.path}/{found.path}')}") for found in content
        )
        yield Repair(
            "Make backups, ISO images and templates anew",
            "A file that can be made again, should be: remove it and back up, upload or download again. Else copy it "
            "on the node where it is sound, and put the copy in its place.",
            (*names, _again(mirror)),
        )
    if any(meaning.of(Harm.SNAPSHOT)):
        yield Repair(
            "Take a new snapshot",
            "A snapshot cannot be written. Remove the one that differs when the guest is known to be sound, and take "
            "another: blocks that are shared with the image are only equal once the image's are.",
            (_again(mirror),),
        )
