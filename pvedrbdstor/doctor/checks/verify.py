"""When the two copies were compared last, by either node, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.doctor.facts import Look, plain
from pvedrbdstor.doctor.finding import Entry, Finding, Severity
from pvedrbdstor.verify.last import COULD_NOT

DIVERGED = Entry("verify-diverged", (Severity.ERROR,), "the last comparison found the two copies different")
FAILED = Entry("verify-failed", (Severity.WARNING,), "the last comparison did not come to a verdict")
NEVER = Entry("verify-never", (Severity.HINT,), "the two copies were never compared")
OLD = Entry("verify-old", (Severity.HINT,), "the last comparison is more than five weeks old")
ENTRIES = (DIVERGED, FAILED, NEVER, OLD)
_DAY = 86400
_OLD_DAYS = 35
"""The timer compares each month."""


def check(look: Look) -> Iterator[Finding]:
    for storage in look.storages:
        source = f"verify:{storage.id}"
        told = [node for node in look.nodes if source in node.values]
        if not told:
            continue
        records = [record for node in told if (record := node.mapping(source))]
        yield from _judge(storage, records, look.here.at)


def _judge(storage: StorageConfig, records: list[Mapping[str, object]], now: float) -> Iterator[Finding]:
    run = f"'pvedrbdstor verify {storage.id}'"
    judged = [verdict for record in records if isinstance(verdict := record.get("judged"), dict)]
    last = max(records, key=_ended, default=None)
    newest = max(judged, key=_ended, default=None)
    if newest is not None and newest.get("verdict") == "diverged":
        yield DIVERGED.found(
            "The two copies differ, as the last comparison found",
            "Which of them a guest reads depends on the node it runs on. Nothing was repaired, as two different blocks do not say which is right.",
            f"Run {run}, whose report says what differs, what it means and what repairs it",
            storage=storage.id,
        )
    if last is not None and last.get("verdict") == COULD_NOT:
        reason = plain(last.get("reason"))
        yield FAILED.found(
            "The last comparison of the copies did not come to a verdict",
            f"It says: {reason.rstrip('.')}." if reason else "It does not say why.",
            f"Run it again: {run}",
            storage=storage.id,
        )
    if newest is None:
        yield NEVER.found(
            "The two copies were never compared",
            "That both are 'UpToDate' is what DRBD believes; a disk that lies makes them differ without a word.",
            f"Run {run}, and each month by itself: 'systemctl enable --now pvedrbdstor-verify@{storage.id}.timer' on one node",
            storage=storage.id,
        )
    elif (days := (now - _ended(newest)) / _DAY) > _OLD_DAYS:
        yield OLD.found(
            f"The two copies were compared last {days:.0f} days ago",
            "What has begun to differ since then is not known.",
            f"Run {run}, and each month by itself: 'systemctl enable --now pvedrbdstor-verify@{storage.id}.timer' on one node",
            storage=storage.id,
        )


def _ended(record: Mapping[str, object]) -> float:
    ended = record.get("ended")
    return float(ended) if isinstance(ended, int | float) and 0 <= ended < 1 << 40 else 0.0
