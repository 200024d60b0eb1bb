"""The mount: its options, its folder while nothing is mounted, and the start scripts that would unmount it under the guests."""

from __future__ import annotations

from collections.abc import Iterator

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.doctor.facts import Look, Node, number, plain
from pvedrbdstor.doctor.finding import Entry, Finding, Severity
from pvedrbdstor.mirror import mountinfo
from pvedrbdstor.mirror.bringup.mounting import OPTIONS
from pvedrbdstor.mirror.vendor import FOLLOW_UNIT, State

_OCFS2_DOC = "https://docs.kernel.org/filesystems/ocfs2.html"
COHERENCY = Entry(
    "mount-coherency",
    (Severity.WARNING,),
    "OCFS2 is mounted with `coherency=buffered`: O_DIRECT writes leave old pages on the other node",
    _OCFS2_DOC,
)
WRITEBACK = Entry(
    "mount-writeback",
    (Severity.WARNING,),
    "OCFS2 is mounted with `data=writeback`: a crash may show old data in new files",
    _OCFS2_DOC,
)
PANIC = Entry(
    "mount-errors",
    (Severity.WARNING,),
    "an error of OCFS2 would not make it read-only, but panic or be passed over",
    _OCFS2_DOC,
)
MUTABLE = Entry(
    "mount-point-mutable", (Severity.WARNING,), "nothing is mounted, and files can be written to the folder itself"
)
FILLED = Entry("mount-point-filled", (Severity.WARNING,), "nothing is mounted, and files lie in the folder itself")
VENDOR = Entry(
    "vendor-unmasked",
    (Severity.ERROR,),
    "a start script of drbd-utils or ocfs2-tools would end the mirror before the guests at shutdown",
)
REPLACED = Entry(
    "vendor-replaced", (Severity.HINT,), "a unit of that name is in /etc/systemd/system, which pvedrbdstor leaves alone"
)
ENTRIES = (COHERENCY, WRITEBACK, PANIC, MUTABLE, FILLED, VENDOR, REPLACED)


def check(look: Look) -> Iterator[Finding]:
    for node in look.nodes:
        for storage in look.storages:
            yield from _options(node, storage)
            yield from _folder(node, storage)
        if look.storages:
            yield from _vendor(node)


def _options(node: Node, storage: StorageConfig) -> Iterator[Finding]:
    entry = _mounted(node.text("mountinfo") or "", storage.path)
    if entry is None or entry.fs_type != "ocfs2":
        return
    anew = f"'pvedrbdstor mirror down {storage.id}', then 'pvedrbdstor mirror up {storage.id}', which mounts it with {OPTIONS}"
    remedy = f"Move the guests away from {node.name} and run there {anew}; see that nothing else mounts it (/etc/fstab)"

    for option in entry.options:
        title = f"{storage.path} is mounted with '{plain(option)}'"
        if option == "coherency=buffered":
            yield COHERENCY.found(
                title,
                "A node that writes with O_DIRECT, as guests do, does not have the other one drop its pages: after a migration that one may read old data.",
                remedy,
                nodes=(node.name,),
                storage=storage.id,
            )
        elif option == "data=writeback":
            yield WRITEBACK.found(
                title,
                "After a crash, files that were just being written may show what was on the disk there before.",
                remedy,
                nodes=(node.name,),
                storage=storage.id,
            )
        elif option in ("errors=panic", "errors=continue"):
            meaning = (
                "One bad block would stop the whole node."
                if option == "errors=panic"
                else "OCFS2 would go on after it has found its own metadata wrong, and make it worse."
            )
            yield PANIC.found(title, meaning, remedy, nodes=(node.name,), storage=storage.id)


def _mounted(text: str, path: str) -> mountinfo.MountEntry | None:
    entries = (mountinfo.parse_line(line) for line in text.encode("utf-8", "replace").splitlines())
    found = [entry for entry in entries if entry is not None and entry.mount_point == path]
    return found[-1] if found else None


def _folder(node: Node, storage: StorageConfig) -> Iterator[Finding]:
    """What `mirror up` refuses to mount over is told before it is tried."""
    folder = node.mapping(f"folder:{storage.id}")
    if folder.get("mounted") is not False or folder.get("there") is not True:
        return
    count = number(folder.get("count")) or 0
    if count:
        listed = folder.get("names")
        unlock = f"'chattr -i {storage.path}', " if folder.get("immutable") is True else ""
        names = ", ".join(plain(name, 40) for name in listed[:4]) if isinstance(listed, list) else "?"
        yield FILLED.found(
            f"{storage.path} on {node.name} holds {count} entries of its own while nothing is mounted there",
            f"They ({names}) lie on the node's own disk, perhaps by mistake, and would be hidden by the mirror, which is therefore not mounted over them.",
            f"Look at them, and move them away on {node.name}: {unlock}'mv {storage.path} {storage.path}.found', 'mkdir {storage.path}', 'chattr +i {storage.path}'",
            nodes=(node.name,),
            storage=storage.id,
        )
    elif folder.get("immutable") is False:
        yield MUTABLE.found(
            f"{storage.path} on {node.name} can be written to while nothing is mounted there",
            "A backup or a restore that comes at such a moment fills the node's own disk, and is gone from sight after the mount.",
            f"Run 'chattr +i {storage.path}' there; a mount covers it all the same",
            nodes=(node.name,),
            storage=storage.id,
        )


def _vendor(node: Node) -> Iterator[Finding]:
    states = node.mapping("vendor")
    free = [plain(unit, 40) for unit, state in states.items() if state == State.FREE.name]
    if free:
        yield VENDOR.found(
            f"{', '.join(free)} on {node.name} {'is' if len(free) == 1 else 'are'} not masked",
            "At shutdown these unmount OCFS2 and kill what still uses it, and take DRBD down, in no order relative to the guests: QEMU is killed before its "
            "guest has stopped.",
            f"Run 'pvedrbdstor vendor-units follow' on {node.name}, which {FOLLOW_UNIT} does at each boot",
            nodes=(node.name,),
        )
    replaced = [plain(unit, 40) for unit, state in states.items() if state == State.REPLACED.name]
    if replaced:
        paths = [f"/etc/systemd/system/{unit}" for unit in replaced]
        looks = ", ".join(f"'cat {path}'" for path in paths)
        aways = ", ".join(f"'mv {path} /root/'" for path in paths)
        yield REPLACED.found(
            f"{', '.join(replaced)} on {node.name}: a unit of your own is in /etc/systemd/system",
            "It is left alone. If it stops DRBD or unmounts OCFS2 at shutdown it has to do so after the guests.",
            f"Look at it on {node.name}: {looks}. If nothing needs it, have it masked as the others: {aways}, then 'pvedrbdstor vendor-units follow'",
            nodes=(node.name,),
        )
