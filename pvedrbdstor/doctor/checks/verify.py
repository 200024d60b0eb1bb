"""When the two copies were compared last, by either node, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.doctor.facts import Look, plain
from pvedrbdstor.doctor.finding import Entry, Finding, Severity
from pvedrbdstor.verify.last import COULD_NOT
from pvedrbdstor.verify.plan import Mode

DIVERGED = Entry(
    "verify-diverged",
    (Severity.ERROR,),
    "a comparison found the two copies different, and none of more than a sample found them equal since",
)
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
    last = max(records, key=ended_of, default=None)
    newest = max(judged, key=ended_of, default=None)
    if _differ(records):
        yield DIVERGED.found(
            "The two copies differ, as a comparison found",
            "Which of them a guest reads depends on the node it runs on. Nothing was repaired, as two different blocks do not say which is right.",
            f"Run 'pvedrbdstor verify {storage.id} --mode {Mode.ALLOCATED.value}', as a sample may miss it: its report says what differs, what it means and "
            "what repairs it; each repair ends with the same comparison, which must find the copies equal. Where it says that nothing has to be done, this "
            "is told until what differs was written again, and the comparison was run once more",
            storage=storage.id,
        )
    if last is not None and last.get("verdict") == COULD_NOT:
        reason = plain(last.get("reason"))
        yield FAILED.found(
            "The last comparison of the copies did not come to a verdict",
            f"It says: {reason.rstrip('.')}." if reason else "It does not say why.",
            f"See to what is in the way (docs/verify.md has what each reason asks for), then run it again: {_as_before(storage, last)}",
            storage=storage.id,
        )
    if newest is None:
        yield NEVER.found(
            "The two copies were never compared",
            "That both are 'UpToDate' is what DRBD believes; a disk that lies makes them differ without a word.",
            f"Run {run}, and each month by itself: 'systemctl enable --now pvedrbdstor-verify@{storage.id}.timer' on one node",
            storage=storage.id,
        )
    elif (days := (now - ended_of(newest)) / _DAY) > _OLD_DAYS:
        yield OLD.found(
            f"The two copies were compared last {days:.0f} days ago",
            "What has begun to differ since then is not known.",
            f"Run {run}, and each month by itself: 'systemctl enable --now pvedrbdstor-verify@{storage.id}.timer' on one node",
            storage=storage.id,
        )


def _differ(records: list[Mapping[str, object]]) -> bool:
    """Whether a difference stands: neither node has begun to compare all that is allocated since, and found it equal. One that had begun before may
    have been past that block."""
    standing = [found for record in records if isinstance(found := _standing(record), dict)]
    equal = [found for found in standing if found.get("verdict") == "clean" and found.get("mode") != Mode.SAMPLE.value]
    begun = max((_time(found, "began") or ended_of(found) for found in equal), default=0.0)
    return any(found.get("verdict") == "diverged" and ended_of(found) > begun for found in standing)


def _standing(record: Mapping[str, object]) -> object:
    """What no later comparison on that node takes back. A version that does not tell it has the last verdict alone, perhaps of a sample."""
    return record.get("standing", record.get("judged"))


def _as_before(storage: StorageConfig, failed: Mapping[str, object]) -> str:
    """In its own mode, as a sample would not say what it was to."""
    known = next((each for each in Mode if each is not Mode.SAMPLE and each.value == failed.get("mode")), None)
    option = f" --mode {known.value}" if known is not None else ""
    return f"'pvedrbdstor verify {storage.id}{option}'"


def ended_of(record: Mapping[str, object]) -> float:
    """Seconds since 1970."""
    return _time(record, "ended")


def _time(record: Mapping[str, object], name: str) -> float:
    """Seconds since 1970; 0 where that is not told."""
    at = record.get(name)
    return float(at) if isinstance(at, int | float) and 0 <= at < 1 << 40 else 0.0
