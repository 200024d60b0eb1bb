"""What the last check of the write path, by either node, has found wrong. Of one that was never made nothing is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.doctor.checks.guests import drives_of, named, set_options
from pvedrbdstor.doctor.checks.verify import ended_of
from pvedrbdstor.doctor.facts import Look, plain
from pvedrbdstor.doctor.finding import Entry, Finding, Severity
from pvedrbdstor.pve.drives import Drive
from pvedrbdstor.verify.write_path.engines import Mode, Result, Tried
from pvedrbdstor.verify.write_path.facts import Why, risks
from pvedrbdstor.verify.write_path.last import modes_of

FAILED = Entry(
    "write-path-failed",
    (Severity.ERROR, Severity.WARNING),
    "a check found writes that the other disk did not have in time, or a mode of QEMU that fails; a warning where no disk of a VM uses that mode",
)
ENTRIES = (FAILED,)


def check(look: Look) -> Iterator[Finding]:
    for storage in look.storages:
        records = (node.mapping(f"write_path:{storage.id}").get("standing") for node in look.nodes)
        last = max((record for record in records if isinstance(record, dict)), key=ended_of, default=None)
        if last is None or last.get("verdict") != "mismatch":
            continue
        writes, modes = plain(last.get("writes")), modes_of(plain(last.get("modes")))
        if writes or not modes:
            yield _of_writes(storage, writes)
        if modes:
            yield _of_modes(
                storage, modes, drives_of(look, storage), next(iter(modes_of(plain(last.get("safer")))), None)
            )


def _of_writes(storage: StorageConfig, writes: str) -> Finding:
    return FAILED.found(
        f"The write path of '{storage.id}' does not hold what it promises, as a check found{f': {writes}' if writes else ''}",
        "What a guest was told is on both disks may be on one alone: it is lost if that node dies, or reads otherwise after a migration.",
        f"See in 'dmesg' on both nodes what becomes of the disk and of the link, then check again: {_again(storage)}, whose report says what it has seen and "
        "what to set",
        storage=storage.id,
    )


def _of_modes(storage: StorageConfig, modes: Sequence[Mode], drives: list[Drive] | None, safer: Mode | None) -> Finding:
    """drives: of the VMs, None where they are not known: then one of them may be at risk."""
    users = [
        drive
        for risk in risks(drives or (), [Tried("", mode, Result.FAILED) for mode in modes])
        if risk.why is Why.MODE
        for drive in risk.drives
    ]
    first = next((drive for drive in users if not drive.pending), None)
    other = (
        f"Have them use another mode, from the VM's next start on: {set_options(first, cache=safer.cache, aio=safer.aio)}, and the same for each. Then see"
        if first is not None and safer is not None
        else "See"
    )
    return FAILED.found(
        f"Of QEMU's modes {', '.join(map(str, modes))} gave wrong content or errors on '{storage.id}', as a check found{f': {named(users)}' if users else ''}",
        "A VM whose disk uses such a mode may read other data than it wrote, or see a broken disk."
        if users or drives is None
        else "No disk of a VM uses them now; one that did might read other data than it wrote, or see a broken disk.",
        f"{other} in 'dmesg' on both nodes what fails, and check again: {_again(storage)}, whose report has each mode",
        storage=storage.id,
        severity=Severity.ERROR if users or drives is None else Severity.WARNING,
    )


def _again(storage: StorageConfig) -> str:
    return f"'pvedrbdstor verify {storage.id} --write-path'"
