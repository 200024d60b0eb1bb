"""Run in a node: when the kernel shows something, and when the live view of the storage says it too.

    python3 -m tests.lab.guest.sight FILE REGEX WORD     prints a JSON object, or fails after 60 s

FILE is /proc/drbd or /proc/mounts, REGEX what is searched in it; a leading `!` means until it is not there any more.
WORD is a kind of verdict found, or `note:TEXT`, or `cause:TEXT`; again with a leading `!` for its end.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pvedrbdstor.mirror.live.view import read_view
from pvedrbdstor.mirror.verdict import Verdict
from tests.lab.formation import STORAGE

_PATIENCE = 60.0


def main(file: str, regex: str, word: str) -> None:
    kernel, view = _negatable(regex, lambda it: _shown(file, it)), _negatable(word, _said)
    started = time.monotonic()
    known: float | None = None
    while time.monotonic() - started < _PATIENCE:
        if known is None and kernel():
            known = time.monotonic()
        if known is not None and view():
            seen = read_view(STORAGE)
            print(json.dumps({"seconds": time.monotonic() - known, "active": seen.verdict.active}))
            return
        time.sleep(0.02)
    raise SystemExit(f"kernel: {known is not None}; {read_view(STORAGE)}; {Path(file).read_text()}")


def _negatable(text: str, test: Callable[[str], bool]) -> Callable[[], bool]:
    return (lambda: not test(text[1:])) if text.startswith("!") else (lambda: test(text))


def _shown(file: str, regex: str) -> bool:
    return re.search(regex, Path(file).read_text()) is not None


def _said(word: str) -> bool:
    seen = read_view(STORAGE)
    return seen.fresh and _matches(seen.verdict, word)


def _matches(verdict: Verdict, word: str) -> bool:
    what, _, text = word.partition(":")
    if what == "note":
        return any(text in note for note in verdict.notes)
    if what == "cause":
        return any(text in cause for cause in (verdict.cause, *(found.cause for found in verdict.also)))
    return word in (kind.value for kind in verdict.kinds)


if __name__ == "__main__":
    main(*sys.argv[1:])
