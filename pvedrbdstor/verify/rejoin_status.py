"""What is known of the nodes' last rejoin: whether what was written before it was noted, and has been compared. No I/O here."""

from __future__ import annotations

import enum
import time
from dataclasses import asdict, dataclass

from pvedrbdstor.drbd import metadata_08
from pvedrbdstor.drbd.generation_ids import Identifiers
from pvedrbdstor.verify import last, rejoin
from pvedrbdstor.verify.last import Record, SizeOf
from pvedrbdstor.verify.rejoin import Kept


class Stage(enum.StrEnum):
    """apart: they are not connected, or a resync runs. not-noted: DRBD has met since, and nothing was noted. pending: noted, not compared yet. compared: it was."""

    APART = "apart"
    NOT_NOTED = "not-noted"
    PENDING = "pending"
    COMPARED = "compared"


@dataclass(frozen=True, slots=True)
class Status:
    """kept: what this node has noted last. record: of the comparisons that this node led, of those since alone: an older one says nothing of it."""

    stage: Stage
    kept: Kept
    record: Record | None = None
    storage: str = "STORAGE"

    def as_json(self) -> dict[str, object]:
        return {
            "stage": self.stage.value,
            "note": {**asdict(self.kept.note), "bytes": self.kept.bytes},
            "check": last.as_json(self.record),
        }

    def line(self, size_of: SizeOf, now: float | None = None) -> str:
        """For people, such as `last rejoin: clean, rejoin, 12 minutes ago (1.2 GiB)`."""
        now = time.time() if now is None else now
        note = self.kept.note
        met = f"met {last.age(now - note.noted)} ago"
        known = last.line(self.record, size_of, now, "last rejoin") if self.record is not None else None
        match self.stage:
            case Stage.APART:
                return known or f"last rejoin: the nodes are apart or being synchronized (they {met})"
            case Stage.NOT_NOTED:
                why = f" ({note.short})" if note.short is not None else ""
                return f"last rejoin: not compared, as what was written before it was not noted{why}"
            case Stage.PENDING:
                return self._pending(known, met, size_of)
        if known is not None and self.record is not None and self.record.last.ended >= (note.checked or 0.0):
            return known
        by = "this node" if note.leader == note.node else "the other node"
        verdict = f"{note.verdict}, " if note.verdict is not None else ""
        return f"last rejoin: {verdict}compared by {by} {last.age(now - (note.checked or now))} ago; {met}"

    def _pending(self, known: str | None, met: str, size_of: SizeOf) -> str:
        """What was found to differ before it was stopped is told."""
        note = self.kept.note
        told = f", and {note.missing}" if note.missing is not None else ""
        noted = f"{met}, {size_of(self.kept.bytes)} noted{told}"
        by_hand = f"{noted}; where that does not run, 'systemctl start pvedrbdstor-rejoin@{self.storage}' starts it"
        if known is not None and self.record is not None and self.record.last.verdict == "diverged":
            return f"{known}, and not compared to its end; {by_hand}"
        if note.verdict is not None:
            return f"last rejoin: {note.verdict}, and not compared to its end; {by_hand}"
        return f"last rejoin: not compared yet; {by_hand}"


def fresh(kept: Kept | None, record: Record | None) -> Record | None:
    """The record where it is of what this node has noted last, or newer. None where it is older."""
    return record if record is None or kept is None or record.last.ended >= kept.note.noted else None


def status(
    kept: Kept | None, known: Identifiers | None, record: Record | None, storage: str = "STORAGE"
) -> Status | None:
    """storage: for what is said of it. known: DRBD's identifiers now. None where nothing was ever noted on this node, as without the handlers."""
    if kept is None:
        return None
    record = fresh(kept, record)
    if known is None or metadata_08.base(known.bitmap):
        return Status(Stage.APART, kept, record, storage)
    if not kept.note.size or not rejoin.is_of(kept.note, known.history):
        return Status(Stage.NOT_NOTED, kept, record, storage)
    return Status(Stage.PENDING if kept.note.checked is None else Stage.COMPARED, kept, record, storage)
