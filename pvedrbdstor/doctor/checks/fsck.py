"""Whether fsck.ocfs2 is there and can repair this file system: it replays the journals itself, and knows fewer of their features than the kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.doctor.facts import Look, Node, number, plain
from pvedrbdstor.doctor.finding import Entry, Finding, Severity

MISSING = Entry("fsck-missing", (Severity.WARNING,), "a node has no fsck.ocfs2")
REPLAY = Entry(
    "fsck-cannot-replay",
    (Severity.WARNING,),
    "a journal or the file system has features that fsck.ocfs2 refuses, or fsck.ocfs2 is too old to replay all of a journal",
    "https://github.com/markfasheh/ocfs2-tools/blob/master/include/ocfs2/jbd2.h",
)
ENTRIES = (MISSING, REPLAY)
_KNOWN = {"incompat": 0x1 | 0x2, "ro_compat": 0}
"""JBD2_KNOWN_INCOMPAT_FEATURES (revoke, 64bit) and JBD2_KNOWN_ROCOMPAT_FEATURES of include/ocfs2/jbd2.h, as in ocfs2-tools 1.8.5 to 1.8.9."""
_NAMES = {0x4: "async-commit", 0x8: "checksums (v2)", 0x10: "checksums (v3)", 0x20: "fast-commit"}
"""JBD2_FEATURE_INCOMPAT_... of the kernel's include/linux/jbd2.h."""
_ASYNC = 0x4
_WHOLE = (1, 8, 5)
"""The first release that replays a transaction which begins at the journal's end and ends at its start (ocfs2-tools 9fa4aa1b)."""
_VERSION = re.compile(r"fsck\.ocfs2 ([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})")
_SINCE = "After a crash of both nodes the kernel replays the journals at the next mount; what it cannot mount only fsck.ocfs2 can repair."


def check(look: Look) -> Iterator[Finding]:
    for node in look.nodes:
        if "fsck" in node.values:
            yield from _program(node)
    for storage in look.storages:
        told = next((node for node in look.nodes if node.mapping(f"superblock:{storage.id}")), None)
        if told is not None:
            yield from _file_system(told, storage)


def _program(node: Node) -> Iterator[Finding]:
    text = node.text("fsck")
    if text is None:
        yield MISSING.found(
            f"There is no fsck.ocfs2 on {node.name}",
            f"{_SINCE} Then is a bad moment to look for it.",
            "Run 'apt install ocfs2-tools' there",
            nodes=(node.name,),
        )
    elif (found := _VERSION.search(text)) and (version := tuple(map(int, found.groups()))) < _WHOLE:
        yield REPLAY.found(
            f"fsck.ocfs2 {'.'.join(map(str, version))} on {node.name} may leave out the end of a journal",
            f"A transaction that runs over the journal's end, and all after it, are lost; 1.8.5 has that mended. {_SINCE}",
            "Run 'apt update' and 'apt install ocfs2-tools' there",
            nodes=(node.name,),
        )


def _file_system(node: Node, storage: StorageConfig) -> Iterator[Finding]:
    found = node.mapping(f"superblock:{storage.id}")
    features = found.get("features")
    unknown = sorted(
        plain(name, 40)
        for name in (features if isinstance(features, list) else ())
        if isinstance(name, str) and re.match(r"unknown-(incompat|ro-compat)", name)
    )
    if unknown:
        yield REPLAY.found(
            f"The file system has features that are not known: {', '.join(unknown)}",
            f"fsck.ocfs2 refuses a file system with features that are newer than itself. {_SINCE}",
            "Install the newest ocfs2-tools that there is, on both nodes, and try: 'fsck.ocfs2 -V' tells its version",
            storage=storage.id,
        )
    yield from _journals(found.get("journal_features"), storage)


def _journals(listed: object, storage: StorageConfig) -> Iterator[Finding]:
    for slot, words in enumerate(listed if isinstance(listed, list) else ()):
        bits = {name: number(words.get(name)) or 0 for name in _KNOWN} if isinstance(words, dict) else {}
        beyond = {name: value & ~_KNOWN[name] for name, value in bits.items()}
        if not any(beyond.values()):
            continue
        names = [name for bit, name in _NAMES.items() if beyond["incompat"] & bit]
        rest = beyond["incompat"] & ~sum(_NAMES) | beyond["ro_compat"] << 32
        told = ", ".join([*names, *([f"bits {rest:#x}"] if rest else [])])
        yield REPLAY.found(
            f"The journal of slot {slot} has a feature that fsck.ocfs2 refuses: {told}",
            f"It does not replay such a journal: it gives up, or offers to make it anew, which loses what is only there. {_SINCE}",
            _without(storage) if beyond["incompat"] == _ASYNC and not beyond["ro_compat"] else _anew(storage),
            storage=storage.id,
        )


def _without(storage: StorageConfig) -> str:
    """The kernel takes the feature away at a mount without the option (ocfs2_check_volume() in fs/ocfs2/super.c)."""
    return (
        "It comes from the mount option `journal_async_commit`: see that nothing mounts with it (/etc/fstab, and systemd's units). Then, on one node after the "
        f"other, move the guests away and run 'pvedrbdstor mirror down {storage.id}' and 'pvedrbdstor mirror up {storage.id}' there; the first write then takes it away"
    )


def _anew(storage: StorageConfig) -> str:
    return (
        "Find out what has set it, and whether a newer ocfs2-tools knows it ('fsck.ocfs2 -V' tells the version). If it is damage: with the storage down on both "
        f"nodes after a clean 'pvedrbdstor mirror down {storage.id}', fsck.ocfs2 sets the journal's features right"
    )
