"""The lists of both nodes of what was written while they were apart, brought together for the comparison; and what is known of it otherwise."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from pvedrbdstor import command, nodes
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import generation_ids
from pvedrbdstor.drbd.metadata import Range, merged
from pvedrbdstor.errors import CommandFailed, CommandTimeout, VerifyRefused
from pvedrbdstor.verify import rejoin
from pvedrbdstor.verify.last import VERDICTS
from pvedrbdstor.verify.rejoin import SOURCE, TARGET, Kept

SHOW, COMPARED, FOUND = "show", "compared", "found"
"""Words of `pvedrbdstor verify --rejoined`, which the other node is asked by."""
_TOOL_SECONDS = 10.0
_ASK_SECONDS = 30.0
_HANDLERS = (
    "For the next time have both nodes note it: handlers { before-resync-source and before-resync-target } (docs/verify.md). For now "
    "'pvedrbdstor verify {storage} --mode allocated' compares all that is used"
)


@dataclass(frozen=True, slots=True)
class Listed:
    """ranges: to be compared, in order. parted: when the nodes had lost each other, None where that is not known. met: when they met again. short: sentences
    on what is missing in the list. own, other: when each node has noted its part, None where it has none."""

    ranges: tuple[Range, ...]
    parted: float | None
    met: float
    short: tuple[str, ...]
    own: float | None
    other: float | None


def lists(config: StorageConfig, here: str, there: str) -> Listed:
    """What both nodes have noted of the last resync. Raises VerifyRefused where that proves nothing."""
    history = _history(config)
    own, why_own = _own(config)
    other, why_other = _others(config, there)
    return bring_together(config, (here, own, why_own), (there, other, why_other), history)


Noted = tuple[str, Kept | None, str | None]
"""A node, its note, and why there is none."""


def bring_together(config: StorageConfig, own: Noted, other: Noted, history: tuple[int, ...]) -> Listed:
    """history: DRBD's identifiers, the newest first. Raises VerifyRefused. Pure."""
    of_this = {node: kept for node, kept, _ in (own, other) if kept is not None and rejoin.is_of(kept.note, history)}
    source = next((kept for kept in of_this.values() if kept.note.side == SOURCE), None)
    if source is None or not source.note.size:
        raise VerifyRefused(
            storage=config.id,
            cause=f"what was written while the nodes were apart is not known: {_why((own, other), source)}",
            remedy=_HANDLERS.replace("{storage}", config.id),
        )
    return Listed(
        ranges=merged([part for kept in of_this.values() for part in kept.ranges]),
        parted=source.note.parted,
        met=max(kept.note.noted for kept in of_this.values()),
        short=tuple(_missing((own, other), of_this, history[0])),
        own=of_this[own[0]].note.noted if own[0] in of_this else None,
        other=of_this[other[0]].note.noted if other[0] in of_this else None,
    )


def compared(config: StorageConfig, there: str, listed: Listed, leader: str, verdict: str, *, whole: bool) -> None:
    """Both nodes' parts of the list have been compared, so that they are not added to the next one. Where that cannot be told, they are.
    whole: it was not stopped; else a difference was found before."""
    now = time.time() if whole else None
    with suppress(rejoin.Unknown, OSError):
        if listed.own is not None:
            rejoin.compared(config.resource, config.volume, listed.own, now, leader, verdict)
    with suppress(CommandFailed, CommandTimeout):
        if listed.other is not None:
            _ask(config, there, f"{COMPARED if whole else FOUND}={listed.other!r}={leader}={verdict}")


def answer(config: StorageConfig, word: str) -> str:
    """What the other node wants of this one's note. Raises rejoin.Unknown, OSError; ValueError for what is no word."""
    if word == SHOW:
        kept = rejoin.read(config.resource, config.volume)
        return json.dumps(None if kept is None else rejoin.as_json(kept))
    name, noted, leader, verdict = word.split("=")
    if name not in (COMPARED, FOUND) or verdict not in VERDICTS or not (leader.isprintable() and len(leader) < 256):
        raise ValueError(word)
    now = time.time() if name == COMPARED else None
    rejoin.compared(config.resource, config.volume, float(noted), now, leader, verdict)
    return "null"


def _why(notes: tuple[Noted, Noted], source: Kept | None) -> str:
    if source is not None:
        return f"{source.note.node} could not read DRBD's bitmap ({source.note.missing})"
    told = []
    for node, kept, why in notes:
        if why is not None:
            told.append(f"{node}: {why}")
        elif kept is None:
            told.append(f"{node} has noted nothing")
        elif not kept.note.size:
            told.append(f"{node} could not read DRBD's bitmap ({kept.note.short})")
        elif kept.note.side == TARGET:
            told.append(f"{node} was the target of its last resync, and the other node has noted nothing of that")
        else:
            told.append(f"what {node} has noted is of another resync")
    return "; ".join(told)


def _missing(notes: tuple[Noted, Noted], of_this: dict[str, Kept], last: int) -> Iterator[str]:
    """last: the newest identifier of the history, which counts the resyncs."""
    for node, kept, why in notes:
        if node not in of_this:
            reason = why or (
                "it has noted nothing of this rejoin" if kept is None or kept.note.size else str(kept.note.short)
            )
            yield (f"What {node} alone had written when it was lost is not known, and not compared: {reason}.")
            continue
        note = of_this[node].note
        began = rejoin.resyncs_since(note.counted, last) if note.side == SOURCE else None
        if (missing := note.missing) is not None:
            yield f"Not all that {node} had written is known: {missing}."
        elif began is not None and began > 1:
            yield f"Not all that {node} had written is known: {began - 1} of the resyncs since was not noted."


def _history(config: StorageConfig) -> tuple[int, ...]:
    """Raises VerifyRefused."""
    try:
        text = command.run(["drbdadm", "get-gi", f"{config.resource}/{config.volume}"], timeout=_TOOL_SECONDS).stdout
        found = generation_ids.parse(text)
    except (CommandFailed, CommandTimeout):
        found = None
    if found is None:
        raise VerifyRefused(
            storage=config.id,
            cause=f"DRBD does not tell the identifiers of {config.resource}, by which a rejoin is told from another",
            remedy=f"Look at 'drbdadm get-gi {config.resource}/{config.volume}'",
        )
    return found.history


def _own(config: StorageConfig) -> tuple[Kept | None, str | None]:
    try:
        return rejoin.read(config.resource, config.volume), None
    except rejoin.Unknown as error:
        return None, str(error)


def _others(config: StorageConfig, there: str) -> tuple[Kept | None, str | None]:
    try:
        found = json.loads(_ask(config, there, SHOW))
        return None if found is None else rejoin.from_json(found), None
    except (CommandFailed, CommandTimeout) as error:
        return None, nodes.why_not(error)
    except (ValueError, RecursionError) as error:
        return None, f"what it has noted cannot be understood ({error})"


def _ask(config: StorageConfig, there: str, word: str) -> str:
    line = nodes.line(there, ["verify", config.id, "--rejoined", word])
    return command.run(line, timeout=_ASK_SECONDS, limit=rejoin.READ_MAX).stdout
