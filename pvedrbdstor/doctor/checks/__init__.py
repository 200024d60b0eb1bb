"""The checks: pure functions from what was seen to findings, a module for each area, each with its part of the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pvedrbdstor.doctor.checks import (
    configuration,
    drbd,
    faults,
    firewall,
    foreign,
    fsck,
    guests,
    kernels,
    metadata,
    mirror,
    mounts,
    network,
    o2cb,
    ocfs2,
    reach,
    units,
    verify,
    volumes,
    write_path,
)
from pvedrbdstor.doctor.facts import Look
from pvedrbdstor.doctor.finding import Entry, Finding, gathered

_AREAS = (
    reach,
    mirror,
    configuration,
    o2cb,
    drbd,
    mounts,
    units,
    kernels,
    faults,
    ocfs2,
    fsck,
    verify,
    write_path,
    metadata,
    network,
    firewall,
    volumes,
    foreign,
    guests,
)

CHECKS: tuple[Callable[[Look], Iterator[Finding]], ...] = tuple(area.check for area in _AREAS)
CATALOGUE: tuple[Entry, ...] = tuple(entry for area in _AREAS for entry in area.ENTRIES)
"""Every finding there can be, in the order of the table in docs/doctor.md."""


def examine(look: Look) -> tuple[Finding, ...]:
    """All findings, worst first. A check that breaks is a finding of its own beside what it had found by then, and ends no other."""
    return gathered(finding for check in CHECKS for finding in _guarded(check, look))


def _guarded(check: Callable[[Look], Iterator[Finding]], look: Look) -> Iterator[Finding]:
    try:
        yield from check(look)
    except Exception as error:  # whatever a bug raises: the other checks are needed the more then
        yield reach.broke(check.__module__.rpartition(".")[2], error, look.here)
