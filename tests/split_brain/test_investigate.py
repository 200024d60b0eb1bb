"""The other side: from its node or from a file; and settings with which DRBD would choose by itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import BadRequest, CommandFailed, NotAnswering
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
NOW = 2000.0
PAST = "8FAD43BD14D0C583"
OWN = Side(
    *("ha", "a", NOW, "Primary", "UpToDate", "StandAlone", "DUnknown"),
    identifiers=f"341B98452316DB1D:{PAST}:{'0' * 16}:{'0' * 16}:1:1:1:0:0:0:0",
    since=1000.0,
    mounted=True,
    hint=True,
    resource="r0",
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
    monkeypatch.setattr(investigate.time, "time", lambda: NOW)


def dump(monkeypatch: pytest.MonkeyPatch, own: str = "", common: str = "") -> None:
    told(monkeypatch, DUMP.format(own=own, common=common))


def told(monkeypatch: pytest.MonkeyPatch, dump: str, show: str = "") -> None:
    """What drbdadm has of the configuration, and drbdsetup of what is in force: nothing while DRBD is down."""
    answers = {"dump": command.Result(0, dump, ""), "show": command.Result(0 if show else 10, show, "")}
    monkeypatch.setattr(command, "run", lambda argv, **_: answers[argv[1]])


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


NOT_ITS_WORD = [
    (replace(OTHER, node="a"), "of node a"),
    (replace(OTHER, node="c"), "names b as the other one"),
    (replace(OTHER, storage="hb"), "of storage 'hb'"),
    (replace(OTHER, resource="r1"), "resource r1"),
    (replace(OTHER, volume=1), "volume 1"),
    (replace(OTHER, at=NOW - 2 * 3600), "2.0 hours old"),
    (replace(OTHER, at=NOW + 20 * 60), "20 minutes from the future"),
    (replace(OTHER, at=float("nan")), "of no known time"),
    (replace(OTHER, at=300.0), "from before the split was found"),
    (replace(OTHER, identifiers=None), "no identifiers"),
    (replace(OTHER, identifiers="1:2:3"), "no identifiers"),
]


@pytest.mark.parametrize(("side", "words"), [*NOT_ITS_WORD, (None, "no JSON")])
def test_a_file_that_is_not_the_other_nodes_word_of_now_is_refused(
    tmp_path: Path, side: Side | None, words: str
) -> None:
    file = tmp_path / "b.json"
    file.write_text("{" if side is None else json.dumps(as_json(side)))
    with pytest.raises(BadRequest, match=words):
        investigate.investigate(CONFIG, str(file))


@pytest.mark.parametrize(("side", "words"), [*NOT_ITS_WORD, (replace(OTHER, at=NOW - 700), "12 minutes old")])
def test_an_answer_that_is_not_is_none(monkeypatch: pytest.MonkeyPatch, side: Side, words: str) -> None:
    monkeypatch.setattr(remote, "side", lambda node, storage: side)
    found = investigate.investigate(CONFIG)
    assert found.other is None and found.other_name == "b" and words in (found.why_not or "")


def test_clocks_of_two_nodes_may_differ_a_little(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    for at in (NOW + 500, NOW - 900):
        file.write_text(json.dumps(as_json(replace(OTHER, at=at))))
        assert investigate.investigate(CONFIG, str(file)).other is not None


def test_a_clock_that_is_behind_makes_no_answer_of_now_one_from_before_the_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = replace(OTHER, at=NOW - 300)
    monkeypatch.setattr(look, "look", lambda config, **_: replace(OWN, detected=NOW - 60))
    monkeypatch.setattr(remote, "side", lambda node, storage: behind)
    monkeypatch.setattr(remote, "digests", lambda node, storage, wanted: {})
    assert investigate.investigate(CONFIG).other == behind
    file = tmp_path / "b.json"
    file.write_text(json.dumps(as_json(behind)))
    with pytest.raises(BadRequest, match="before the split"):
        investigate.investigate(CONFIG, str(file))


def test_without_one_other_node_in_the_configuration_no_file_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "b.json"
    file.write_text(json.dumps(as_json(OTHER)))
    monkeypatch.setattr(investigate, "peers", lambda config: ("b", "c"))
    with pytest.raises(BadRequest, match="exactly one other node"):
        investigate.investigate(CONFIG, str(file))


def test_where_this_nodes_file_system_hangs_nothing_was_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(config: StorageConfig, wanted: object) -> dict[str, tuple[str, ...]]:
        raise NotAnswering(storage="ha", path="/mnt/pve/ha", seconds=10)

    monkeypatch.setattr(remote, "side", lambda node, storage: OTHER)
    monkeypatch.setattr(investigate, "digests_of", hang)
    assert [change.fate for change in investigate.investigate(CONFIG).changes] == [Fate.CHANGED]


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


def test_a_connection_s_own_policy_counts_and_one_of_the_kernel_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """DRBD 9: `drbdadm up` takes the connection's options as they are written, a mere connect those in force."""
    connection = "resource r0 { on a { } on b { } net { after-sb-1pri disconnect; } connection { net { %s } } }"
    discards = ("after-sb-1pri discard-secondary",)
    told(monkeypatch, connection % "after-sb-1pri discard-secondary;")
    assert investigate.discarding_policies(CONFIG) == discards
    told(monkeypatch, connection % "")
    assert investigate.discarding_policies(CONFIG) == ()
    kernel = (
        'resource "r0" { _this_host { node-id 0; volume 0 { device minor 0; } } '
        'connection { _peer_node_id 1; net { after-sb-1pri discard-secondary; _name "b"; } } }'
    )
    told(monkeypatch, connection % "", kernel)
    assert investigate.discarding_policies(CONFIG) == discards
    found = investigate.not_to_connect(CONFIG)
    assert found is not None and "drbdadm net-options r0" in found.remedy
    told(monkeypatch, connection % "", kernel.replace("discard-secondary", "retry-connect"))
    assert investigate.discarding_policies(CONFIG) == ()


@pytest.mark.parametrize(
    ("volumes", "policy", "said"),
    [
        ("", "disconnect", None),
        ("", "discard-remote", "after-sb-1pri"),
        ("volume 0 { } volume 1 { }", "disconnect", "2 volumes"),
    ],
)
def test_the_nodes_do_not_meet_where_more_would_be_lost_than_was_preserved(
    monkeypatch: pytest.MonkeyPatch, volumes: str, policy: str, said: str | None
) -> None:
    dump = f"resource r0 {{ net {{ after-sb-1pri {policy}; }} {volumes} on a {{ }} on b {{ }} }}\n"
    told(monkeypatch, dump)
    found = investigate.not_to_connect(CONFIG)
    assert (found is None) == (said is None) and (said is None or (found is not None and said in found.cause))
