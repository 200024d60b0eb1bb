"""How guests use their disks: what a failure would cost them by QEMU's cache and aio modes. The risks are those of `verify --write-path`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.doctor.checks.volumes import shown
from pvedrbdstor.doctor.facts import Look, number
from pvedrbdstor.doctor.finding import Entry, Finding, Severity
from pvedrbdstor.pve.drives import Drive
from pvedrbdstor.verify.write_path.facts import Why, risks

UNSAFE = Entry("guest-cache-unsafe", (Severity.WARNING,), "a guest's disk has `cache=unsafe`")
NATIVE = Entry(
    "guest-aio-native",
    (Severity.WARNING,),
    "a guest's disk has `aio=native` with a cache, with which QEMU does not start",
)
FLUSHES = Entry(
    "guest-flushes-lost",
    (Severity.HINT,),
    "guests' disks use O_DIRECT (`cache=none`, Proxmox's default), with which OCFS2 may lose flushed writes when the node dies (docs/lab.md)",
)
FULL = Entry(
    "guest-full-errors",
    (Severity.HINT,),
    "guests' disks that would see I/O errors, instead of being paused, if the storage were full (docs/lab.md)",
)
ENTRIES = (UNSAFE, NATIVE, FLUSHES, FULL)
_TEXTS = ("key", "value", "cache", "aio")


def check(look: Look) -> Iterator[Finding]:
    for storage in look.storages:
        drives = drives_of(look, storage) or []
        yield from _at_risk(storage, drives)
        yield from _when_full(storage, drives, _named_whole(look, storage))
        native = [drive for drive in drives if drive.aio == "native" and not drive.direct]
        if native:
            yield NATIVE.found(
                f"{named(native)}: aio=native with cache={native[0].cache}",
                "QEMU refuses native AIO without O_DIRECT: the guest does not start, or not after its migration.",
                f"Choose another: {set_options(native[0], aio='io_uring')}",
                storage=storage.id,
            )


def drives_of(look: Look, storage: StorageConfig) -> list[Drive] | None:
    """The disks of all VMs on the storage, by guest; None where they were not told."""
    listed = look.here.mapping(f"guests:{storage.id}").get("drives")
    if not isinstance(listed, list):
        return None
    drives = [drive for words in listed if (drive := _drive(words)) is not None]
    return sorted(drives, key=lambda drive: (drive.vmid, drive.key, drive.pending))


def _at_risk(storage: StorageConfig, drives: list[Drive]) -> Iterator[Finding]:
    for risk in risks(drives, ()):
        at_risk = list(risk.drives)
        if risk.why is Why.UNSAFE:
            yield UNSAFE.found(
                f"{named(at_risk)}: cache=unsafe",
                "QEMU ignores the guest's flushes: when the node dies, what the guest was told is on the disk is not, and its file system may be broken.",
                f"Have it flushed, from the guest's next start on: {_cached(at_risk)}",
                storage=storage.id,
            )
        elif risk.why is Why.FLUSHES:
            yield FLUSHES.found(
                f"{named(at_risk)}: O_DIRECT",
                "When the node dies, flushed writes of the last 5 s are lost that went into blocks never written before, or shared with a snapshot or "
                "clone. Whether the modes work at all 'pvedrbdstor verify --write-path' tells.",
                f"If that matters more than speed, from the guest's next start on: {_cached(at_risk)}",
                storage=storage.id,
            )


def _cached(drives: Sequence[Drive]) -> str:
    """The command that puts the first of them behind the page cache, where QEMU starts none with aio=native."""
    why = (
        "; no disk may keep `aio=native` then, as QEMU starts no guest with that and a cache" if _native(drives) else ""
    )
    return f"{set_options(drives[0], **drives[0].cached)}{why}"


def _native(drives: Sequence[Drive]) -> bool:
    return any(drive.aio == "native" for drive in drives)


def _named_whole(look: Look, storage: StorageConfig) -> set[tuple[int, str]]:
    """(VMID, key) of the drives whose image has all of its space, so that no write of it needs more."""
    whole = {
        f"{image.get('vmid')}/{image.get('name')}"
        for image in _mappings(look.here.mapping(f"volumes:{storage.id}").get("images"))
        if (number(image.get("used")) or 0) >= (number(image.get("size")) or 0)
    }
    named = _mappings(look.here.mapping(f"guests:{storage.id}").get("named"))
    told = ((number(line.get("vmid")), line.get("key"), line.get("volume")) for line in named)
    return {
        (vmid, key)
        for vmid, key, volume in told
        if vmid is not None and isinstance(key, str) and isinstance(volume, str) and volume in whole
    }


def _mappings(listed: object) -> list[Mapping[str, object]]:
    return [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, list) else []


def _when_full(storage: StorageConfig, drives: list[Drive], whole: set[tuple[int, str]]) -> Iterator[Finding]:
    """OCFS2 answers EIO to a write with O_DIRECT that finds no space, and QEMU pauses a guest on ENOSPC alone (its default, `werror=enospc`)."""
    found = [
        drive
        for drive in drives
        if drive.direct and "werror=stop" not in drive.value.split(",") and (drive.vmid, drive.key) not in whole
    ]
    if found:
        yield FULL.found(
            f"{named(found)}: O_DIRECT, and an image that can still grow",
            "If the storage is full when the guest writes where the image has no space yet, it sees a broken disk; its file system may become read-only. "
            f"With `cache=writeback`{' and without `aio=native`' if _native(found) else ''}, or with `werror=stop`, QEMU pauses it instead, and it goes on "
            "when there is space again.",
            f"From the guest's next start on: {set_options(found[0], werror='stop')}, and the same for each; or see that there is always space",
            storage=storage.id,
        )


def _drive(words: object) -> Drive | None:
    if not isinstance(words, Mapping) or number(words.get("vmid")) is None:
        return None
    key, value, cache, aio = (
        text if isinstance(text := words.get(name), str) and text.isprintable() else "" for name in _TEXTS
    )
    if not (key and value):
        return None
    return Drive(words["vmid"], key, value, cache, aio, words.get("pending") is True)


def named(drives: list[Drive]) -> str:
    return shown(f"VM {drive.vmid} {drive.key}{' (pending)' if drive.pending else ''}" for drive in drives)


def set_options(drive: Drive, **options: str) -> str:
    return f"'qm set {drive.vmid} --{drive.key} {shlex.quote(drive.changed(**options))}'"
