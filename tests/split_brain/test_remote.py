"""Digests asked of the other node: requests that fit a command line, answers put together again."""

from __future__ import annotations

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor import nodes
from pvedrbdstor.fencing.split import remote
from pvedrbdstor.fencing.split.ranges import CHUNK, batched

MAX_ARG_STRLEN = 128 << 10


class Node:
    """The other node: a digest says of which chunk it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[list[str]] = []
        self.missing: set[str] = set()
        monkeypatch.setattr(remote, "run", self.run)

    def run(self, node: str, words: list[str], timeout: float = 0) -> str:
        self.lines.append(words)
        wanted = json.loads(words[-1])
        return json.dumps(
            {
                path: [f"{path}@{at}" for start, length in ranges for at in range(start, start + length, CHUNK)]
                for path, ranges in wanted.items()
                if path not in self.missing
            }
        )


def test_a_file_of_very_many_ranges_is_asked_for_in_several_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(monkeypatch)
    wanted = {
        "images/it's/disk" + "'" * 2000: tuple((2 * number * CHUNK, CHUNK) for number in range(20_000)),
        "small": ((0, CHUNK),),
    }
    found = remote.digests("b", "ha", wanted)
    assert found == {path: tuple(f"{path}@{start}" for start, _ in ranges) for path, ranges in wanted.items()}
    assert len(node.lines) > 2
    for words in node.lines:
        argument = nodes.ssh(nodes.Way("b"), ["pvedrbdstor", *words])[-1]
        assert len(argument.encode()) < MAX_ARG_STRLEN and shlex.split(argument)[-1] == words[-1]


def test_much_data_is_asked_for_in_parts_that_can_be_read_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(monkeypatch)
    found = remote.digests("b", "ha", {"disk": ((0, 5 << 30),)})
    assert len(node.lines) == 3 and len(found["disk"]) == (5 << 30) // CHUNK
    assert list(found["disk"]) == [f"disk@{at}" for at in range(0, 5 << 30, CHUNK)]


def test_a_file_that_is_not_told_of_whole_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(monkeypatch)
    node.missing = {"gone"}
    wanted = {"gone": ((0, CHUNK),), "disk": ((0, CHUNK),)}
    assert remote.digests("b", "ha", wanted) == {"disk": ("disk@0",)}
    monkeypatch.setattr(remote, "run", lambda *_: '{"disk": ["one"]}')
    assert remote.digests("b", "ha", {"disk": ((0, 2 * CHUNK),)}) == {}
    monkeypatch.setattr(remote, "run", lambda *_: "no JSON")
    assert remote.digests("b", "ha", wanted) == {}


_ranges = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=6)


@given(st.dictionaries(st.sampled_from("abc"), _ranges), st.integers(1, 4), st.integers(1, 8))
def test_batches_have_every_chunk_once_and_in_order(
    wanted: dict[str, list[tuple[int, int]]], largest: int, most: int
) -> None:
    found: dict[str, list[int]] = {}
    for batch in batched(wanted, lambda path, length, new: length / most, largest):
        pieces = [piece for ranges in batch.values() for piece in ranges]
        assert sum(length for _, length in pieces) <= most or len(pieces) == 1
        for path, ranges in batch.items():
            found.setdefault(path, []).extend(at for start, length in ranges for at in range(start, start + length))
    expected = {
        path: [at for start, length in ranges for at in range(start, start + length)] for path, ranges in wanted.items()
    }
    assert found == {path: chunks for path, chunks in expected.items() if chunks}
