"""The check itself: both nodes write in turn, each write is followed to the other's disk as soon as it is acknowledged; then QEMU's modes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pvedrbdstor.errors import WritePathUnchecked
from pvedrbdstor.pve.drives import Drive
from pvedrbdstor.verify import hello as hellos
from pvedrbdstor.verify.hello import Hello
from pvedrbdstor.verify.write_path import engines, facts, pattern
from pvedrbdstor.verify.write_path.engines import MODES, Mode, Result, Tried
from pvedrbdstor.verify.write_path.facts import Direction, Ground, Outcome, Seen
from pvedrbdstor.verify.write_path.probe import QEMU_SECONDS
from pvedrbdstor.verify.write_path.side import Side

LATE_SECONDS = 5.0
"""How long a write that was acknowledged is looked for on the other disk."""
_START_SECONDS = 45.0
_MAKE_SECONDS = 60.0


def check(
    storage: str,
    here: Side,
    there: Side,
    blocks: int = pattern.BLOCKS_DEFAULT,
    modes: Sequence[Mode] = MODES,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Both sides have been started. Raises WritePathUnchecked where nothing was checked that would be worth telling."""
    began, clock = time.time(), time.monotonic()
    steps = _Steps(progress, 2 * (blocks + len(modes)))
    grounds = _meet(storage, here, there)
    directions: list[Direction] = []
    tried: list[Tried] = []
    unchecked: list[str] = []
    pairs = ((here, there), (there, here))
    try:
        for writer, reader in pairs:
            found = _follow(writer, reader, grounds[reader.node], blocks, steps)
            if not found.good:
                _look_again(here, there)
            directions.append(found)
        for writer, reader in pairs:
            for mode in modes:
                tried.append(_try(writer, reader, mode))
                steps.one()
    except WritePathUnchecked as error:  # one that hangs answers nothing more, and what is known by then is told
        if not directions:
            raise
        unchecked.append(str(error.fields["cause"]))
    drives = _drives(here, unchecked)
    for side in (here, there):
        with suppress(WritePathUnchecked):
            side.ask("remove")
    return Outcome(
        storage=storage,
        here=here.node,
        there=there.node,
        blocks=blocks,
        began=began,
        seconds=time.monotonic() - clock,
        directions=tuple(directions),
        modes=tuple(tried),
        risks=facts.risks(drives or (), tried),
        guests=None if drives is None else len(drives),
        unchecked=tuple(unchecked),
    )


class _Steps:
    def __init__(self, progress: Callable[[int, int], None], total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def one(self) -> None:
        self._done += 1
        self._progress(self._done, self._total)


def _meet(storage: str, here: Side, there: Side) -> dict[str, Ground]:
    """Who both sides are, which must be copies of one mirror, and what each of them writes to."""
    found: dict[str, Ground] = {}
    hellos_: list[Hello] = []
    for side in (here, there):
        answer = side.ask("hello", seconds=_START_SECONDS)
        words = answer.get("hello")
        try:
            assert isinstance(words, dict)
            if hellos_ and (stranger := hellos.another_version(hellos_[0], words)) is not None:
                raise side.unchecked(stranger.cause, stranger.remedy)
            hellos_.append(hellos.from_json(words))
            found[side.node] = _ground(answer["ground"])
        except (AssertionError, ValueError, KeyError, TypeError) as error:
            raise side.unchecked(
                f"{side.node} does not tell who it is ({error})", "Install the same version of pvedrbdstor on both"
            ) from error
    unlike = hellos.obstacle(hellos_[0], hellos_[1], storage)
    if unlike is not None:
        raise there.unchecked(unlike.cause, unlike.remedy)
    return found


def _look_again(here: Side, there: Side) -> None:
    """Raises WritePathUnchecked where DRBD does not replicate any more: then what was seen is no word on how it does."""
    for side in (here, there):
        side.ask("look", seconds=_START_SECONDS)


def _ground(words: Mapping[str, Any]) -> Ground:
    """Raises ValueError, KeyError, TypeError."""
    protocols = words["protocols"]
    if not isinstance(protocols, list) or not all(isinstance(word, str) and len(word) < 8 for word in protocols):
        raise ValueError("'protocols' is no list")
    cache, lower, flushes = words["write_cache"], words["lower"], words["flushes"]
    if not (isinstance(lower, str) and isinstance(flushes, bool) and (cache is None or isinstance(cache, str))):
        raise ValueError("the disk is not told")
    return Ground(lower[:256], tuple(protocols), flushes, cache)


def _follow(writer: Side, reader: Side, ground: Ground, blocks: int, steps: _Steps) -> Direction:
    made = writer.ask("prepare", seconds=_MAKE_SECONDS, blocks=blocks)
    name, token = writer.text(made, "name"), writer.text(made, "token")
    places = writer.items(made, "places", int, blocks)
    seen = []
    for index, place in enumerate(places):
        seen.append(_write(writer, reader, token, index, place))
        steps.one()
    expected = [pattern.digest(pattern.block(token, index, pattern.AFTER)) for index in range(blocks)]
    answer = reader.ask("read", seconds=_MAKE_SECONDS, name=name, blocks=blocks)
    changed = engines.differing(expected, reader.items(answer, "digests", str))
    return Direction(writer.node, reader.node, ground, tuple(seen), changed)


def _write(writer: Side, reader: Side, token: str, index: int, place: int) -> Seen:
    """The lag is counted from the last moment at which the write can have been acknowledged at the earliest: it is never told too short."""
    expected = pattern.digest(pattern.block(token, index, pattern.AFTER))
    asked = time.monotonic()
    latency = writer.number(writer.ask("write", index=index), "seconds")
    acknowledged, looks = asked + latency, 0
    while True:
        found = reader.text(reader.ask("lower", offset=place), "digest")
        now, looks = time.monotonic(), looks + 1
        if found == expected or now - acknowledged > LATE_SECONDS:
            return Seen(latency, now - acknowledged, late=looks > 1, there=found == expected)
        time.sleep(0.005)


def _try(writer: Side, reader: Side, mode: Mode) -> Tried:
    answer = writer.ask("engine", seconds=QEMU_SECONDS + 20, aio=mode.aio, cache=mode.cache)
    detail, name = writer.text(answer, "detail"), writer.text(answer, "name")
    try:
        result = Result(writer.text(answer, "result"))
    except ValueError:
        return Tried(writer.node, mode, Result.UNTRIED, "it does not tell what became of it")
    if result is not Result.OK:
        return Tried(writer.node, mode, result, detail)
    expected = pattern.digests(engines.content(mode))
    for side in (writer, reader):
        found = side.items(side.ask("read", name=name, blocks=len(expected)), "digests", str)
        if wrong := engines.differing(expected, found):
            return Tried(
                writer.node, mode, Result.DIFFERS, f"{side.node} reads {wrong} of {len(expected)} blocks wrong"
            )
    return Tried(writer.node, mode, Result.OK)


def _drives(here: Side, unchecked: list[str]) -> list[Drive] | None:
    """The guests' disks, asked for some at a time; None where they cannot be told."""
    found: list[Drive] = []
    try:
        while words := here.items(here.ask("drives", start=len(found)), "drives", dict):
            found += [_drive(each) for each in words]
    except WritePathUnchecked as error:
        unchecked.append(f"the guests' configurations: {error.fields['cause']}")
        return None
    return found


def _drive(words: dict[str, Any]) -> Drive:
    """From this node's own child, whose words are as it made them."""
    return Drive(**words)
