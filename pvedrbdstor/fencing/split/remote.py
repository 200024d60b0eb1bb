"""What a split brain's resolution asks of the other node, and has done there."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence

from pvedrbdstor import command, nodes
from pvedrbdstor.drbd.metadata import Range
from pvedrbdstor.fencing.split.ranges import CHUNK, batched, total
from pvedrbdstor.fencing.split.side import Side, from_json

_ASK_SECONDS = 600.0
_WORDS_MAX = 60_000
"""Of one request, in bytes: a single argument of a program may have 128 KiB (MAX_ARG_STRLEN, execve(2)), quotes and all."""
_BYTES_MAX = 2 << 30
"""Of the data that one request is about: what a slow disk reads well within _ASK_SECONDS."""
_RANGE_WORDS = 45
"""Two numbers of 20 digits, brackets and commas."""


def run(node: str, words: Sequence[str], timeout: float = _ASK_SECONDS) -> str:
    """What `pvedrbdstor WORDS` prints on a node. Raises CommandFailed, CommandTimeout."""
    return command.run(nodes.line(node, words), timeout=timeout, limit=64 << 20).stdout


def side(node: str, storage: str) -> Side:
    """What the other node knows, without digests. Raises CommandFailed, CommandTimeout, BadRequest."""
    return from_json(_json(run(node, ["split-brain", "show", storage, "--local", "--quick", "--json"])))


def digests(node: str, storage: str, wanted: Mapping[str, Sequence[Range]]) -> dict[str, tuple[str, ...]]:
    """Digests of the other node's files, as files.digests() gives them; a file of which not all came is left out.

    Raises CommandFailed, CommandTimeout.
    """
    found: dict[str, list[str]] = {}
    broken: set[str] = set()
    for batch in batched(wanted, _cost, _BYTES_MAX):
        text = run(node, ["split-brain", "show", storage, "--digests", json.dumps(batch, separators=(",", ":"))])
        answer = _json(text)
        for path, ranges in batch.items():
            values = answer.get(path) if isinstance(answer, dict) else None
            if isinstance(values, list) and len(values) == total(ranges) // CHUNK:
                found.setdefault(path, []).extend(map(str, values))
            else:
                broken.add(path)
    return {path: tuple(values) for path, values in found.items() if path not in broken}


def connect(node: str, storage: str, keep: str) -> None:
    """Let the node to keep do its part. Raises CommandFailed, CommandTimeout."""
    run(node, ["split-brain", "resolve", storage, "--keep", keep, "--yes"], timeout=60)


def _cost(path: str, length: int, new: bool) -> float:
    """Of a piece in a request, which may cost 1: it is bounded by its words as a shell quotes them, and by what is to be read."""
    words = _RANGE_WORDS + (len(shlex.quote(json.dumps(path))) + 4 if new else 0)
    return words / _WORDS_MAX + length / _BYTES_MAX


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
