"""The images, and whether guests and images know each other. What is being made or moved at this moment may show up: look twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.doctor.facts import Look, counted, number, plain
from pvedrbdstor.doctor.finding import Entry, Finding, Severity

MISSING = Entry(
    "volume-missing",
    (Severity.ERROR, Severity.WARNING),
    "a guest's configuration names an image that is not there; in a snapshot, a warning",
)
ORPHANED = Entry("volume-orphaned", (Severity.HINT,), "images of guests that do not exist")
UNNAMED = Entry("volume-unreferenced", (Severity.HINT,), "images that their guest's configuration does not name")
INTERRUPTED = Entry(
    "volume-interrupted", (Severity.WARNING,), "an operation that a crash cut off, or one that runs now"
)
FRAGMENTED = Entry("volume-fragmented", (Severity.HINT,), "images in thousands of small pieces")
PARTLY = Entry("volume-unlooked", (Severity.HINT,), "not all images could be looked at for fragmentation in time")
ENTRIES = (MISSING, ORPHANED, UNNAMED, INTERRUPTED, FRAGMENTED, PARTLY)
_SHOWN = 5
_PIECES = 2000
_PIECE = 1 << 20
"""Bytes on average below which an image in that many pieces counts as fragmented."""


def check(look: Look) -> Iterator[Finding]:
    for storage in look.storages:
        found = look.here.mapping(f"volumes:{storage.id}")
        if not found:
            continue
        images = _images(found.get("images"))
        guests = look.here.mapping(f"guests:{storage.id}")
        if guests:
            yield from _against(storage, images, guests)
        interrupted = number(found.get("interrupted")) or 0
        if interrupted:
            yield INTERRUPTED.found(
                f"{counted(interrupted, 'operation')} on '{storage.id}' cut off by a crash, or running now",
                "Until they are finished or undone nothing else is done to their guests. Each activation of the storage does that by itself.",
                f"Finish or undo them: 'pvedrbdstor volume recover {storage.id}', which leaves alone what runs now",
                storage=storage.id,
            )
        yield from _fragments(storage, images, found)


def _images(listed: object) -> dict[str, Mapping[str, object]]:
    """`VMID/NAME` -> what was told of it."""
    found: dict[str, Mapping[str, object]] = {}
    for image in listed if isinstance(listed, list) else ():
        if isinstance(image, dict) and number(image.get("vmid")) is not None and isinstance(image.get("name"), str):
            found[f"{image['vmid']}/{image['name']}"] = image
    return found


def _against(
    storage: StorageConfig, images: Mapping[str, Mapping[str, object]], guests: Mapping[str, object]
) -> Iterator[Finding]:
    vmids = {vmid for vmid in _list(guests.get("vmids")) if isinstance(vmid, int)}
    named = [
        line for line in _list(guests.get("named")) if isinstance(line, dict) and isinstance(line.get("volume"), str)
    ]
    yield from _missing(storage, images, named)
    known = {line["volume"] for line in named}
    orphaned = [name for name, image in images.items() if image["vmid"] not in vmids]
    unnamed = [name for name, image in images.items() if image["vmid"] in vmids and name not in known]
    if orphaned:
        yield ORPHANED.found(
            f"{counted(len(orphaned), 'image')} of guests that do not exist: {shown(orphaned)}",
            "They take space, and a new guest of that number finds them among its own. The guest may have been removed on a node that could not reach them.",
            f"Look whose they were ('pvesm list {storage.id}'): a guest whose configuration was lost has its data here alone, and gets it back with "
            "that configuration, out of a backup. What is nobody's 'pvedrbdstor volume free --help' removes for good",
            storage=storage.id,
        )
    if unnamed:
        vmid = images[unnamed[0]]["vmid"]
        yield UNNAMED.found(
            f"{counted(len(unnamed), 'image')} that no guest's configuration names: {shown(unnamed)}",
            "They take space, and no backup has them.",
            f"Have Proxmox list them as unused disks: 'qm disk rescan --vmid {vmid}' ('pct rescan --vmid {vmid}' for a container), then remove or attach them",
            storage=storage.id,
        )


def _missing(storage: StorageConfig, images: Iterable[str], named: list[dict[str, object]]) -> Iterator[Finding]:
    there = set(images)
    for in_snapshot in (False, True):
        lines = [
            line for line in named if line["volume"] not in there and (" in " in str(line.get("key"))) is in_snapshot
        ]
        if lines:
            told = [
                f"{plain(line.get('kind'), 4)} {plain(str(line.get('vmid')), 12)} {plain(line.get('key'), 60)}: {plain(line['volume'], 60)}"
                for line in lines
            ]
            yield MISSING.found(
                f"{counted(len(lines), 'image')} missing on '{storage.id}' that guests name: {shown(told)}",
                "Rolling back to that snapshot fails." if in_snapshot else "The guest does not start.",
                f"Look at what is there ('pvesm list {storage.id}'); restore the image from a backup, or take the line out of the configuration",
                storage=storage.id,
                severity=Severity.WARNING if in_snapshot else Severity.ERROR,
            )


def _fragments(
    storage: StorageConfig, images: Mapping[str, Mapping[str, object]], found: Mapping[str, object]
) -> Iterator[Finding]:
    pieces = found.get("pieces")
    bad = []
    for name, told in pieces.items() if isinstance(pieces, dict) else ():
        used = number(images.get(name, {}).get("used"))
        count = number(told) or 0
        if used and count >= _PIECES and used / count < _PIECE:
            bad.append((count, name, used))
    if bad:
        worst = plain(max(bad)[1], 80)
        vmid = worst.partition("/")[0]
        listed = [
            f"{plain(name, 60)} ({count} pieces of {used // count >> 10} KiB)"
            for count, name, used in sorted(bad, reverse=True)
        ]
        yield FRAGMENTED.found(
            f"{counted(len(bad), 'image')} of '{storage.id}' in many small pieces: {shown(listed)}",
            "On spinning disks reading them from end to end, as a backup does, is slow; the first writes after a snapshot split images so.",
            f"Have Proxmox write it anew: remove old snapshots of its guest first ('pvedrbdstor volume snapshot list {storage.id}:{worst}' shows them, "
            f"'qm delsnapshot {vmid} NAME' removes one), then with the guest off 'qm disk move {vmid} DISK STORAGE --delete 1' to another storage, and the same "
            f"back to {storage.id}. For a container they are 'pct delsnapshot {vmid} NAME' and 'pct move-volume {vmid} DISK STORAGE --delete 1'",
            storage=storage.id,
        )
    left = number(found.get("not_looked_at")) or 0
    if left:
        names = [str(name) for name in _list(found.get("left")) if name in images]
        one = f"'filefrag {storage.path}/{storage.images_dir}/{names[0] if names else 'VMID/NAME'}'"
        yield PARTLY.found(
            f"{counted(left, 'image')} of '{storage.id}' not looked at to the end for fragmentation{f', as {shown(names)}' if names else ''}",
            "The largest come first, and the time was up. So it is each time where there are many, or the node is busy.",
            f"Nothing needs to be done. Of an image that matters {one} counts the pieces; thousands, of less than 1 MiB on average, are many",
            storage=storage.id,
        )


def shown(names: Iterable[str]) -> str:
    """The first few."""
    listed = [plain(name, 120) for name in names]
    return ", ".join(listed[:_SHOWN]) + (f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else "")


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
