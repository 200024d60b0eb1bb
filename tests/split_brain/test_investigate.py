"""The other side: from its node or from a file; and settings with which DRBD would choose by itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import BadRequest, CommandFailed
from pvedrbdstor.fencing.split import investigate, look, remote
from pvedrbdstor.fencing.split.compare import Fate
from pvedrbdstor.fencing.split.judge import Case
from pvedrbdstor.fencing.split.ranges import CHUNK
from pvedrbdstor.fencing.split.side import FileState, Side, as_json

CONFIG = StorageConfig("ha", "/mnt/pve/ha", "r0")
DUMP = """common {{ net {{ {common} }} }}
resource r0 {{
    on a {{ device /dev/drbd0 minor 0; }}
    on b {{ device /dev/drbd0 minor 0; }}
    net {{ {own} }}
}}
"""
PATH = "images/100/vm-100-disk-0.raw"
PAST = "8FAD43BD14D0C583"
OWN = Side(
    *("ha", "a", 2000.0, "Primary", "UpToDate", "StandAlone", "DUnknown"),
    identifiers=f"341B98452316DB1D:{PAST}:{'0' * 16}:{'0' * 16}:1:1:1:0:0:0:0",
    since=1000.0,
    mounted=True,
    hint=True,
    files=(FileState(PATH, CHUNK, CHUNK, int(1500 * 1e9), ((0, 4096),), 4096),),
)
OTHER = replace(
    OWN,
    node="b",
    identifiers=f"0435461777F92B05:{PAST}:{'0' * 16}:{'0' * 16}:1:1:1:0:0:0:0",
    digests={PATH: ("theirs",)},
)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    dump(monkeypatch)
    monkeypatch.setattr(look, "look", lambda config, **_: OWN)
    monkeypatch.setattr(investigate, "digests_of", lambda config, wanted: dict.fromkeys(wanted, ("mine",)))
    monkeypatch.setattr(investigate.socket, "gethostname", lambda: "a")


def dump(monkeypatch: pytest.MonkeyPatch, own: str = "", common: str = "") -> None:
    text = DUMP.format(own=own, common=common)
    monkeypatch.setattr(command, "run", lambda argv, **_: command.Result(0, text, ""))


def test_the_other_node_is_asked_and_digests_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "side", lambda node, storage: OTHER)
    for theirs, fate in (("theirs", Fate.DIFFERS), ("mine", Fate.SAME)):
        monkeypatch.setattr(
            remote, "digests", lambda node, storage, wanted, said=theirs: dict.fromkeys(wanted, (said,))
        )
        found = investigate.investigate(CONFIG)
        assert found.judgement.case is Case.SPLIT and found.other_name == "b"
        assert [change.fate for change in found.changes] == [fate]


def test_where_it_cannot_be_asked_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(node: str, storage: str) -> Side:
        raise CommandFailed(command="ssh", status="exit status 255", output="ssh: no route to host")

    monkeypatch.setattr(remote, "side", fail)
    found = investigate.investigate(CONFIG)
    assert (found.other, found.other_name, found.why_not) == (None, "b", "ssh: no route to host")
    assert found.judgement.case is Case.PERHAPS and found.changes[0].fate is Fate.CHANGED


def test_its_word_in_a_file_will_do(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    file.write_text(json.dumps(as_json(OTHER)))
    found = investigate.investigate(CONFIG, str(file))
    assert found.judgement.case is Case.SPLIT and found.changes[0].fate is Fate.DIFFERS


@pytest.mark.parametrize("side", [replace(OTHER, node="a"), replace(OTHER, storage="hb"), None])
def test_a_file_of_something_else_is_refused(tmp_path: Path, side: Side | None) -> None:
    file = tmp_path / "b.json"
    file.write_text("{" if side is None else json.dumps(as_json(side)))
    with pytest.raises(BadRequest):
        investigate.investigate(CONFIG, str(file))


@pytest.mark.parametrize(
    ("own", "common", "found"),
    [
        ("", "", ()),
        ("after-sb-0pri disconnect; rr-conflict disconnect;", "", ()),
        ("after-sb-1pri discard-secondary;", "", ("after-sb-1pri discard-secondary",)),
        ("", "rr-conflict violently;", ("rr-conflict violently",)),
        ("rr-conflict disconnect;", "rr-conflict violently;", ()),
    ],
)
def test_policies_that_discard(monkeypatch: pytest.MonkeyPatch, own: str, common: str, found: tuple[str, ...]) -> None:
    dump(monkeypatch, own, common)
    assert investigate.discarding_policies(CONFIG) == found
