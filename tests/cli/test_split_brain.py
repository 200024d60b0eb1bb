"""`pvedrbdstor split-brain`: what it prints, what it asks, what it refuses. The plan and the work: tests/split_brain."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from pvedrbdstor import command, nodes
from pvedrbdstor.cli import split_resolve
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd.events2 import parse_now
from pvedrbdstor.errors import BringUpRefused, CommandFailed, SplitRefused
from pvedrbdstor.fencing.split import abandon, begin, hands, investigate, journal, look, preserve, remote
from pvedrbdstor.fencing.split.compare import Change, Fate, Written
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.judge import Case, Judgement
from pvedrbdstor.fencing.split.plan import Refusal, Situation
from pvedrbdstor.fencing.split.report import Report
from pvedrbdstor.fencing.split.seal import Seal
from pvedrbdstor.fencing.split.side import FileState, Side, as_json, from_json
from pvedrbdstor.fencing.split.steps import Preserve, Step
from pvedrbdstor.mirror.bringup import down, join, paths
from pvedrbdstor.mirror.bringup.record import Record, describe
from tests.cli.conftest import CommandLine

MINE = Side(
    "ha", "a", 1000.0, "Primary", "UpToDate", "StandAlone", "DUnknown", met=True, since=900.0, mounted=True, hint=True
)
CHANGE = Change("images/100/vm-100-disk-0.raw", Fate.CHANGED, Written(4096, 4096), None)
SPLIT = Report(MINE, None, "b", "no route to host", Judgement(Case.SPLIT, ("It is one.",)), (CHANGE,))
PLANNED = Journal("ha", "b", "a", 1000.0, 16, 32, 48, Preserve.FILES, "/aside/ha-split-T")


@pytest.fixture(autouse=True)
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Node a, whose journals lie in a folder of the test."""
    monkeypatch.setattr(socket, "gethostname", lambda: "a")
    monkeypatch.setattr(paths, "RESOLUTIONS", str(tmp_path / "split"))
    monkeypatch.setattr(down, "release", lambda storage: None)
    monkeypatch.setattr(investigate, "investigate", lambda config, other_file=None, **_: SPLIT)
    monkeypatch.setattr(investigate, "not_to_connect", lambda config: None)
    monkeypatch.setattr(investigate, "peers", lambda config: ("b",))
    return tmp_path / "split"


def test_show_tells_what_is_lost_and_how_to_go_on(cli: CommandLine) -> None:
    result = cli("split-brain", "show", "ha")
    assert result.exit_code == 0
    assert "b could not be asked: no route to host" in result.stdout
    assert "what was written to images/100/vm-100-disk-0.raw (4 KiB, not compared)" in result.stdout
    assert "pvedrbdstor split-brain resolve ha --keep a" in result.stdout


def test_show_as_json(cli: CommandLine) -> None:
    document = json.loads(cli("split-brain", "show", "ha", "--json").stdout)
    assert document["case"] == "split-brain" and document["since"] == 900.0 and document["other_asked"] is False
    assert document["changes"][0]["here_bytes"] == {"sure": 4096, "at_most": 4096}


def test_show_names_a_resolution_that_has_not_ended(cli: CommandLine) -> None:
    journal.write(PLANNED)
    assert "has not ended" in cli("split-brain", "show", "ha").stdout
    assert "has not ended" in json.loads(cli("split-brain", "show", "ha", "--json").stdout)["in_progress"]


def test_show_local_is_what_the_other_node_reads(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = replace(MINE, files=(FileState("x", 1, 1, 1, ((0, 1),), 1),))
    monkeypatch.setattr(look, "look", lambda config, with_digests: mine)
    assert from_json(json.loads(cli("split-brain", "show", "ha", "--local", "--json").stdout)) == mine


@pytest.mark.parametrize("text", ["no json", "[1]", '{"x": 3}'])
def test_digests_of_nonsense_are_refused(cli: CommandLine, text: str) -> None:
    assert cli("split-brain", "show", "ha", "--digests", text).exit_code == 64


ENDED = Record("ha", 1, 0.0, "mounting", 0.0, finished=1.0)


class Hands(hands.NodeHands):
    """A node on which every step works at once."""

    taken: list[Step] = []  # noqa: RUF012 - one list for the test, emptied by it

    def look(self, journal: Journal) -> Situation:
        joined = journal.told
        return Situation(
            mounted=Step.DOWN not in journal.done,
            mount=1,
            read_only=Step.QUIESCE in journal.done,
            role="Secondary" if Step.DOWN in journal.done else "Primary",
            disk="UpToDate",
            connection="Connected" if joined else "StandAlone",
            replication="Established" if joined else "Off",
            peer_disk="UpToDate" if joined else "DUnknown",
            current=PLANNED.keeper if joined else PLANNED.current,
            bitmap=PLANNED.bitmap,
            known=frozenset({48}),
            sealed=journal.seal is not None,
        )

    def act(self, step: Step, journal: Journal) -> Journal:
        self.taken.append(step)
        return replace(journal, seal=Seal("1", 1, 1)) if step is Step.DOWN else journal


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    Hands.taken = []
    monkeypatch.setattr(split_resolve, "NodeHands", Hands)
    monkeypatch.setattr(hands, "NodeHands", Hands)
    monkeypatch.setattr(begin, "begin", lambda config, **_: begin.Begun(PLANNED, SPLIT, 4096))
    monkeypatch.setattr(join, "join", lambda *_: ENDED)
    monkeypatch.setattr(preserve, "is_there", lambda journal: True)
    return Hands.taken


def test_the_plan_alone_is_printed_where_nobody_can_answer(cli: CommandLine, works: list[Step], node: Path) -> None:
    result = cli("split-brain", "resolve", "ha", "--keep", "b")
    assert result.exit_code == 1 and works == []
    assert "keep b's copy, discard a's" in result.stdout and "Say --yes" in result.stderr
    assert not (node / "ha.json").exists()


@pytest.mark.parametrize(("answer", "status"), [("b\n", 1), ("\n", 1), ("yes\n", 1), ("a\n", 0)])
def test_the_name_of_the_node_to_lose_must_be_typed(
    cli: CommandLine, works: list[Step], on_a_terminal: None, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    result = cli("split-brain", "resolve", "ha", "--keep", "b", input=answer)
    assert result.exit_code == status, result.stderr
    assert bool(works) == (status == 0)


def test_it_tells_its_steps_and_keeps_the_record(cli: CommandLine, works: list[Step], node: Path) -> None:
    result = cli("split-brain", "resolve", "ha", "--discard-here", "--yes")
    assert result.exit_code == 0, result.stderr
    assert works == [Step.QUIESCE, Step.COPY, Step.DOWN, Step.CHECK, Step.DISCARD, Step.COMPARE]
    assert "What a had is preserved: /aside/ha-split-T (files)" in result.stdout
    assert not (node / "ha.json").exists() and list(node.glob("ha.*.done"))


HALF = replace(
    PLANNED, done=frozenset({Step.QUIESCE, Step.COPY, Step.DOWN, Step.SEAL, Step.CHECK}), seal=Seal("1", 1, 1)
)


def test_an_interrupted_one_goes_on_but_asks_again_before_anything_is_discarded(
    cli: CommandLine, works: list[Step]
) -> None:
    journal.write(HALF)
    assert cli("split-brain", "resolve", "ha").exit_code == 1 and works == []
    result = cli("split-brain", "resolve", "ha", "--yes")
    assert result.exit_code == 0 and "going on" in result.stderr
    assert works == [Step.DISCARD, Step.COMPARE]


def test_one_that_has_discarded_already_goes_on_unasked(cli: CommandLine, works: list[Step]) -> None:
    journal.write(replace(HALF, told=True))
    assert cli("split-brain", "resolve", "ha").exit_code == 0
    assert works == [Step.COMPARE]


@pytest.mark.parametrize(
    "options",
    [
        ("--keep", "c"),
        ("--preserve-to", "/"),
        ("--other", "/etc/hostname"),
        ("--keep", "b", "--other", "/etc/hostname"),
    ],
)
def test_other_options_than_it_was_begun_with_are_refused_aloud(
    cli: CommandLine, works: list[Step], options: tuple[str, ...]
) -> None:
    journal.write(HALF)
    result = cli("split-brain", "resolve", "ha", *options, "--yes")
    assert result.exit_code == 75 and "--abandon" in result.stderr and works == []


def test_start_over_gives_it_up_first(cli: CommandLine, works: list[Step], node: Path) -> None:
    journal.write(replace(PLANNED, done=frozenset({Step.DOWN}), began=7.0))
    result = cli("split-brain", "resolve", "ha", "--keep", "b", "--start-over", "--yes")
    assert result.exit_code == 0 and works[0] is Step.QUIESCE
    assert "given up" in result.stderr and len(list(node.glob("ha.*.done"))) == 2


def test_abandon_lets_the_storage_be_used_again(cli: CommandLine, works: list[Step], node: Path) -> None:
    journal.write(HALF)
    result = cli("split-brain", "resolve", "ha", "--abandon")
    assert result.exit_code == 0 and works == [] and "stays: /aside/ha-split-T" in result.stdout
    assert not (node / "ha.json").exists()
    assert cli("split-brain", "resolve", "ha", "--abandon").exit_code == 75


def test_abandon_puts_a_record_away_that_cannot_be_read(
    cli: CommandLine, node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "drbd_state", lambda resource: parse_now(""))
    node.mkdir()
    (node / "ha.json").write_text("torn")
    assert cli("split-brain", "resolve", "ha", "--yes").exit_code == 65
    assert cli("split-brain", "resolve", "ha", "--abandon").exit_code == 0
    assert list(node.glob("ha.*.broken"))


def test_a_copy_that_is_half_overwritten_is_not_given_up(cli: CommandLine, works: list[Step]) -> None:
    now = Hands.look(hands.NodeHands.__new__(Hands), HALF)
    for replication in ("SyncTarget", "WFBitMapT", "PausedSyncT"):
        joined = replace(now, connection="Connected", replication=replication, disk="Outdated")
        refusal = abandon.refuse(HALF, joined)
        assert refusal is not None and "just being overwritten" in refusal.cause
    assert abandon.refuse(HALF, now) is None


def test_what_giving_up_leaves_is_told_as_it_is(cli: CommandLine) -> None:
    now = Hands.look(hands.NodeHands.__new__(Hands), HALF)
    config = StorageConfig(id="ha", path="/mnt/pve/ha", resource="r0")
    assert "as it was, and not mounted" in abandon.left(config, HALF, now)
    assert "as it was, and mounted" in abandon.left(config, HALF, replace(now, mounted=True))
    joined = replace(now, connection="Connected", replication="Established", current=99)
    assert "are connected" in abandon.left(config, HALF, joined)
    assert "another one than this was begun with" in abandon.left(config, HALF, replace(now, current=99))
    assert "cannot be read" in abandon.left(config, HALF, replace(now, current=None))
    gone = abandon.left(config, replace(HALF, told=True, given_up=("/aside/x",)), replace(now, current=99))
    assert "to the end or in part" in gone and "/aside/x, /aside/ha-split-T" in gone


@pytest.mark.parametrize(("state", "down"), [("Connecting", True), ("StandAlone", True), ("Connected", False)])
def test_giving_up_takes_back_what_drbd_was_told(
    cli: CommandLine, works: list[Step], monkeypatch: pytest.MonkeyPatch, state: str, down: bool
) -> None:
    """By taking it down: DRBD 9 does not forget it otherwise."""
    lines: list[list[str]] = []
    peer = f"exists peer-device name:r0 peer-node-id:1 conn-name:b volume:0 replication:{'Established' if not down else 'Off'}"
    text = (
        "exists resource name:r0 role:Secondary suspended:no\n"
        f"exists connection name:r0 peer-node-id:1 conn-name:b connection:{state} role:Unknown\n"
        f"exists device name:r0 volume:0 minor:0 disk:UpToDate\n{peer} peer-disk:DUnknown\nexists -\n"
    )
    monkeypatch.setattr(look, "drbd_state", lambda resource: parse_now(text))
    monkeypatch.setattr(command, "run", lambda argv, **_: lines.append(argv))
    journal.write(replace(HALF, told=True))
    assert cli("split-brain", "resolve", "ha", "--abandon").exit_code == 0
    assert (["drbdadm", "down", "r0"] in lines) == down


def test_a_storage_that_does_not_come_up_again_is_told_after_the_success(
    cli: CommandLine, works: list[Step], monkeypatch: pytest.MonkeyPatch, node: Path
) -> None:
    refused = BringUpRefused(storage="ha", cause="no cluster.conf", remedy="Write it")
    monkeypatch.setattr(join, "join", lambda *_: replace(ENDED, error=describe(refused, "ha")))
    result = cli("split-brain", "resolve", "ha", "--keep", "b", "--yes")
    assert "both nodes have b's copy again" in result.stdout and "no cluster.conf" in result.stderr
    assert result.exit_code == refused.exit_status and not (node / "ha.json").exists()


def test_without_a_side_it_is_a_wrong_command_line(cli: CommandLine, works: list[Step]) -> None:
    assert cli("split-brain", "resolve", "ha").exit_code == 2


def test_two_at_a_time_are_refused(cli: CommandLine, works: list[Step]) -> None:
    with split_resolve._only_one("ha"):
        result = cli("split-brain", "resolve", "ha", "--keep", "b", "--yes")
    assert result.exit_code == 75 and "another" in result.stderr


def test_a_refusal_is_its_error(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: StorageConfig, **_: object) -> begin.Begun:
        raise SplitRefused(storage="ha", cause="VM 100 runs", remedy="Stop it")

    monkeypatch.setattr(begin, "begin", refuse)
    result = cli("split-brain", "resolve", "ha", "--keep", "b", "--yes")
    assert result.exit_code == 75
    assert result.stderr == "pvedrbdstor: The split brain of storage 'ha' is not resolved: VM 100 runs. Stop it.\n"


@pytest.mark.parametrize(
    "options",
    [
        ("--keep", "a", "--abandon"),
        ("--keep", "a", "--start-over", "--yes"),
        ("--keep", "a", "--preserve-to", "/var/tmp", "--yes"),
        ("--keep", "a", "--discard-here", "--yes"),
        ("--abandon", "--keep", "b"),
        ("--abandon", "--start-over"),
        ("--abandon", "--discard-here"),
    ],
)
def test_a_line_typed_on_the_wrong_node_does_not_do_the_opposite_of_what_it_says(
    cli: CommandLine, works: list[Step], monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    """The other node may be waiting with the order to discard: to connect now would carry it out."""

    def run(line: list[str], **_: object) -> command.Result:
        raise AssertionError(line)

    monkeypatch.setattr(command, "run", run)
    result = cli("split-brain", "resolve", "ha", *options)
    assert result.exit_code == 2 and works == []


@pytest.mark.parametrize(("state", "connects"), [("StandAlone", True), ("Connecting", False), ("Connected", False)])
def test_the_node_to_keep_only_connects(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, state: str, connects: bool
) -> None:
    lines: list[list[str]] = []
    monkeypatch.setattr(begin, "connection", lambda config: state)
    monkeypatch.setattr(command, "run", lambda argv, **_: lines.append(argv))
    result = cli("split-brain", "resolve", "ha", "--keep", "a", "--yes")
    assert result.exit_code == 0
    assert lines == ([["drbdadm", "connect", "r0"]] if connects else [])


def test_the_node_to_keep_must_have_drbd_up(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(begin, "connection", lambda config: None)
    result = cli("split-brain", "resolve", "ha", "--keep", "a", "--yes")
    assert result.exit_code == 75 and "mirror up ha" in result.stderr


def test_the_node_to_keep_does_not_connect_where_drbd_would_choose(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(investigate, "not_to_connect", lambda config: Refusal("after-sb-1pri discard-secondary", "x"))
    result = cli("split-brain", "resolve", "ha", "--keep", "a", "--yes")
    assert result.exit_code == 75 and "discard-secondary" in result.stderr


# --- the other node ------------------------------------------------------------------------------------------------

DUMP = """resource r0 {
    on a { device /dev/drbd0 minor 0; disk /dev/sda; meta-disk internal; address ipv4 10.0.0.1:7789; }
    on b.example { device /dev/drbd0 minor 0; disk /dev/sda; meta-disk internal; address ipv4 10.0.0.2:7789; }
}
"""


def test_the_other_node_is_the_one_of_drbds_configuration() -> None:
    assert nodes.other_nodes(DUMP, "r0", 0, "a.example") == ("b",)
    assert nodes.other_nodes(DUMP, "r1", 0, "a") == ()


def test_ssh_never_asks_and_quotes_what_it_runs() -> None:
    line = nodes.ssh(nodes.Way("b", "10.0.0.2", "/etc/pve/nodes/b/ssh_known_hosts"), ["pvedrbdstor", "x", '{"a b": 1}'])
    assert line[:3] == ["ssh", "-o", "BatchMode=yes"] and "HostKeyAlias=b" in line
    assert "UserKnownHostsFile=/etc/pve/nodes/b/ssh_known_hosts" in line
    assert line[-3:] == ["root@10.0.0.2", "--", "pvedrbdstor x '{\"a b\": 1}'"]


def test_many_digests_are_asked_for_in_several_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def answer(node: str, words: list[str], timeout: float = 0) -> str:
        asked.append(json.loads(words[-1]))
        return json.dumps({path: ["x"] for path in asked[-1]})

    monkeypatch.setattr(remote, "run", answer)
    wanted = {f"images/100/vm-100-disk-{number}.raw": ((0, 1 << 20),) for number in range(3000)}
    found = remote.digests("b", "ha", wanted)
    assert set(found) == set(wanted) and len(asked) > 1
    assert all(len(json.dumps(request)) < 100_000 for request in asked)


def test_why_the_other_node_cannot_be_asked_is_said_in_a_line() -> None:
    error = CommandFailed(command="ssh", status="exit status 255", output="x\nssh: no route to host")
    assert nodes.why_not(error) == "ssh: no route to host"
    assert as_json(MINE)["node"] == "a"
