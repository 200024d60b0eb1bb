"""Give a resolution up: what it did to this node is undone, what it preserved stays, its record is put away."""

from __future__ import annotations

import time

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import commands
from pvedrbdstor.errors import SplitRefused
from pvedrbdstor.fencing.split import hands, journal
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.plan import Refusal, Situation
from pvedrbdstor.fencing.split.steps import Step
from pvedrbdstor.mirror.bringup import down, paths

_SECONDS = 30.0
_AWAY = ("StandAlone", None)


def refuse(current: Journal, now: Situation) -> Refusal | None:
    """Pure. A copy that is half overwritten has no way back, only on."""
    if now.disk != "Inconsistent":
        return None
    return Refusal(
        f"{current.discard}'s copy is being overwritten with {current.keep}'s: there is nothing left here to go back to",
        f"Go on: 'pvedrbdstor split-brain resolve {current.storage}'. What {current.discard} had is preserved: {current.target}",
    )


def abandon(config: StorageConfig, current: Journal) -> str:
    """Returns where the record is kept. Raises SplitRefused, CommandFailed, CommandTimeout, OSError."""
    now = hands.NodeHands(config).look(current)
    if (refusal := refuse(current, now)) is not None:
        raise SplitRefused(storage=config.id, cause=refusal.cause, remedy=refusal.remedy)
    if not now.connected and now.connection not in _AWAY:
        # DRBD would discard this copy as soon as the other node comes
        command.run(commands.disconnect(config.resource), timeout=_SECONDS)
    if now.mounted and now.read_only and Step.QUIESCE in current.done:
        command.run(["mount", "-o", "remount,rw", config.path], timeout=_SECONDS)
    kept = journal.put_away(current)
    down.release(config.id)
    return kept


def put_away_broken(storage: str) -> str:
    """Of a record that cannot be read. Returns where it is kept. Raises OSError."""
    kept = f"{paths.RESOLUTIONS}/{storage}.{time.strftime('%Y%m%d-%H%M%S')}.broken"
    journal.move(storage, kept)
    return kept
