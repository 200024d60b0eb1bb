"""What a comparison has found, as a value, as JSON and in words: the truth, short, and what to do next. No I/O here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pvedrbdstor.drbd.metadata import Range

_SHOWN_MAX = 12
_WHOLE = {
    "full": "all of it",
    "allocated": "all that is allocated",
    "sample": "a sample",
    "kernel": "all of it, by DRBD's own verify",
    "rejoin": "what may have been written while the nodes were apart",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """size, compared, granularity: bytes. began: seconds since 1970. Ranges are bytes of the DRBD device, of whole blocks of 4 KiB.

    stopped: the reason why it did not come to its end, None where it did. much: so much differs that the rest was left out. surely: with
    a sample, how many damaged blocks would have been found with 95 % probability. marked: KiB that DRBD had marked as different before.
    resumable: --resume goes on. resumed: it went on with one that was interrupted, which had begun at ``began``. verify_alg: whether DRBD
    could verify by itself. minor: of the DRBD device. remarks: what else is worth knowing. parted, met: with `rejoin`, when the nodes had lost each
    other, None where that is not known, and met again, seconds since 1970. to_compare: bytes that it was about.
    """

    storage: str
    mode: str
    here: str
    there: str
    size: int
    granularity: int
    compared: int
    began: float
    seconds: float
    diverged: tuple[Range, ...] = ()
    unsettled: tuple[Range, ...] = ()
    unreadable_here: tuple[Range, ...] = ()
    unreadable_there: tuple[Range, ...] = ()
    stopped: str | None = None
    much: bool = False
    surely: int | None = None
    seed: int | None = None
    marked: int = 0
    resumable: bool = False
    verify_alg: bool = True
    minor: int = 0
    remarks: tuple[str, ...] = ()
    resumed: bool = False
    parted: float | None = None
    met: float | None = None
    to_compare: int | None = None

    @property
    def verdict(self) -> str:
        """diverged, also where it was stopped later; else stopped: not compared to the end; unreadable, unsettled, or clean."""
        if self.diverged:
            return "diverged"
        if self.stopped is not None:
            return "stopped"
        if self.unreadable_here or self.unreadable_there:
            return "unreadable"
        return "unsettled" if self.unsettled or self.much else "clean"

    @property
    def exit_status(self) -> int:
        """0 only where all that was to be compared is equal, 1 where some of it differs for certain, else 2."""
        return {"clean": 0, "diverged": 1}.get(self.verdict, 2)


def as_json(outcome: Outcome) -> dict[str, object]:
    """Offsets and lengths in bytes."""
    return {
        "storage": outcome.storage,
        "verdict": outcome.verdict,
        "exit_status": outcome.exit_status,
        "mode": outcome.mode,
        "nodes": [outcome.here, outcome.there],
        "began": outcome.began,
        "seconds": round(outcome.seconds, 1),
        "size": outcome.size,
        "granularity": outcome.granularity,
        "compared": outcome.compared,
        "diverged": _ranges(outcome.diverged),
        "unsettled": _ranges(outcome.unsettled),
        "unreadable": {
            outcome.here: _ranges(outcome.unreadable_here),
            outcome.there: _ranges(outcome.unreadable_there),
        },
        "stopped": outcome.stopped,
        "left_out": outcome.much,
        "resumable": outcome.resumable,
        "resumed": outcome.resumed,
        "sample": None
        if outcome.surely is None
        else {
            "seed": outcome.seed,
            "confidence": 0.95,
            "blocks": outcome.surely,
            "bytes": outcome.surely * outcome.granularity,
        },
        "rejoin": None
        if outcome.met is None
        else {"parted": outcome.parted, "met": outcome.met, "bytes": outcome.to_compare},
        "marked_by_drbd_kib": outcome.marked,
        "remarks": list(outcome.remarks),
    }


def text(outcome: Outcome, meaning: Sequence[str] = (), repairs: Sequence[str] = ()) -> str:
    """meaning: what the differing ranges are, in lines; without it they are listed. repairs: lines on what to do."""
    lines = [f"{outcome.storage}: {_headline(outcome)}"]
    lines += [f"  {line}" for line in _what(outcome)]
    if outcome.diverged:
        lines += [f"  {line}" for line in meaning or places(outcome.diverged)]
    for name, ranges in ((outcome.here, outcome.unreadable_here), (outcome.there, outcome.unreadable_there)):
        if ranges:
            lines += [f"  {name} cannot read {size(total(ranges))}:", *(f"  {line}" for line in places(ranges))]
    lines += [f"  {line}" for line in _next(outcome)]
    lines += [f"  {line}" for line in repairs]
    return "\n".join(lines) + "\n"


def _headline(outcome: Outcome) -> str:
    both = f"{outcome.here} and {outcome.there}"
    match outcome.verdict:
        case "clean":
            sampled = " wherever they were compared" if outcome.surely is not None or outcome.mode == "rejoin" else ""
            return f"the copies of {both} are equal{sampled}."
        case "diverged":
            rest = f" Not compared to the end: {outcome.stopped}" if outcome.stopped is not None else ""
            rest = " Not all of it was compared." if outcome.much and not rest else rest
            return f"{size(total(outcome.diverged))} DIFFER between {both}.{rest}"
        case "unreadable":
            lost = total(outcome.unreadable_here) + total(outcome.unreadable_there)
            return f"{size(lost)} cannot be read; the rest is equal."
        case "unsettled" if not outcome.unsettled:
            return "nothing is known to differ, but not all of it was compared."
        case "unsettled":
            return f"nothing is known to differ, but {size(total(outcome.unsettled))} kept changing and could not be compared."
    return f"not compared to the end: {outcome.stopped}"


def _what(outcome: Outcome) -> Iterator[str]:
    what = (
        "by DRBD's own verify, and not all of it" if outcome.mode == "kernel" and outcome.much else _WHOLE[outcome.mode]
    )
    rate = f", {size(int(outcome.compared / outcome.seconds))}/s" if outcome.seconds >= 1 and outcome.compared else ""
    blocks = f" in blocks of {size(outcome.granularity)}" if outcome.mode != "kernel" else ""
    yield f"Compared: {size(outcome.compared)} of {size(outcome.size)} ({what}){blocks}, in {outcome.seconds:.0f} s{rate}."
    if outcome.met is not None:
        since = (
            "they were lost to each other at a time that is not known"
            if outcome.parted is None
            else f"they lost each other {_at(outcome.parted)}"
        )
        yield f"Of the nodes' last rejoin: {since}, and met again {_at(outcome.met)}. The rest of the device was not read."
    if outcome.resumed:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(outcome.began))
        yield f"It began at {began}, was interrupted, and went on with that: what was equal by then was not compared again."
    if outcome.surely is not None and outcome.stopped is None:
        amount = size(outcome.surely * outcome.granularity)
        yield (
            f"Had {outcome.surely} or more of these blocks differed ({amount}), wherever they lie, the sample would have met one with 95 % "
            f"probability. Smaller damage can be missed. (Seed {outcome.seed}.)"
        )
    if outcome.verdict in ("diverged", "unreadable", "stopped") and outcome.unsettled:
        yield f"{size(total(outcome.unsettled))} kept changing and could not be compared."
    if outcome.much and not outcome.remarks:
        yield "So much differed that the rest was left out."
    if outcome.marked:
        yield f"DRBD itself had marked {size(outcome.marked << 10)} as different before, as an earlier verify of its own has found."
    yield from outcome.remarks


def _next(outcome: Outcome) -> Iterator[str]:
    match outcome.verdict:
        case "unsettled" if outcome.unsettled:
            yield (
                "Run it again when guests write less. Blocks that a guest changes all the time (swap, a database's log) are no sign of a "
                "fault."
            )
        case "unreadable":
            yield "Look at 'dmesg' and at the disk there ('smartctl -a'): it fails. Its copy is not whole."
    if outcome.resumable:
        yield f"'pvedrbdstor verify {outcome.storage} --resume' goes on where it was."


def _at(moment: float) -> str:
    return time.strftime("at %Y-%m-%d %H:%M:%S", time.localtime(moment))


def places(ranges: Sequence[Range]) -> Iterator[str]:
    """The first ranges of the device, in lines."""
    for start, length in ranges[:_SHOWN_MAX]:
        yield f"  {size(length)} at byte {start}"
    if len(ranges) > _SHOWN_MAX:
        left = ranges[_SHOWN_MAX:]
        yield f"  and {size(total(left))} in {len(left)} more places (--json has all of them)"


def total(ranges: Sequence[Range]) -> int:
    return sum(length for _, length in ranges)


def size(count: int) -> str:
    """Exact in the largest unit that leaves no fraction, else with a tenth."""
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << shift:
            whole, rest = divmod(count, 1 << shift)
            return f"{whole} {unit}" if not rest else f"{count / (1 << shift):.1f} {unit}"
    return f"{count} bytes"


def _ranges(ranges: Sequence[Range]) -> list[dict[str, int]]:
    return [{"offset": start, "length": length} for start, length in ranges]
