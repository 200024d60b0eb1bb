"""`pvedrbdstor setup`: what it asks for, shows and refuses, and what it keeps for apply. The nodes are facts; nothing is done to them."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pvedrbdstor.cli import setup_text
from pvedrbdstor.cli.app import app
from pvedrbdstor.setup import journal as journals
from pvedrbdstor.setup import paths, remote
from pvedrbdstor.setup.facts import Facts
from pvedrbdstor.setup.hands import Outcome
from pvedrbdstor.setup.link import Measured
from pvedrbdstor.setup.plan import Plan
from pvedrbdstor.setup.steps import Step
from tests.loopback import Loopback
from tests.setup import world

DISKS = ("--disk", "pve1:/dev/sdb", "--disk", "pve2:/dev/sdb", "--network", "10.10.10.0/24")


class Nodes:
    """Both nodes. fail: the step that fails. taken: those that were taken."""

    def __init__(self) -> None:
        self.found: dict[str, Facts] = world.nodes()
        self.taken: list[str] = []
        self.fail = ""
        self.measured = Measured({"pve1": 9400, "pve2": 9500}, 92, True)
        self.measures: list[int] = []

    def look(self, node: str) -> Facts:
        return self.found[node]

    def measure(self, plan: Plan) -> Measured:
        self.measures.append(plan.port)
        return self.measured

    def carry_out(self, step: Step, again: bool) -> Outcome:
        self.taken.append(step.id)
        return (
            Outcome(failure="it cannot be done.")
            if step.id == self.fail
            else Outcome(said="healthy." * (step.kind.value == "status"))
        )


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """This node is pve1."""
    found = Nodes()
    monkeypatch.setattr(paths, "FOLDER", str(tmp_path / "setup"))
    monkeypatch.setattr(remote.Both, "look", lambda _, node: found.look(node))
    monkeypatch.setattr(remote.Both, "measure", lambda _, plan: found.measure(plan))
    monkeypatch.setattr(remote.Both, "record", lambda _, node, device: f"what is on {node}")
    monkeypatch.setattr(remote.Both, "carry_out", lambda _, step, again: found.carry_out(step, again))
    monkeypatch.setattr("os.uname", lambda: type("Uname", (), {"nodename": "pve1", "release": "6.8"})())
    yield found


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["setup", *arguments])


def raised(result: Result) -> str:
    """The error that ended it, as people read it."""
    assert result.exit_code in (64, 65, 69, 74), result.output
    return result.output


class TestPlan:
    def test_everything_is_shown_and_nothing_done(self, nodes: Nodes) -> None:
        result = run("plan", "ha", *DISKS)
        assert result.exit_code == 0, result.output
        for words in (
            'resource "r0" {',
            "$ mkfs.ocfs2 -F -q -N 2",
            "pve2: bring the storage ha up",
            "why: ",
            "Know before:",
        ):
            assert words in result.output
        assert nodes.taken == []

    def test_it_is_kept_for_root_alone(self, nodes: Nodes) -> None:
        document = json.loads(run("plan", "ha", *DISKS, "--json").output)
        assert stat.S_IMODE(Path(document["kept"]).stat().st_mode) == 0o600
        assert document["steps"][0]["id"] == "pve1.modules"

    def test_the_link_is_measured_shown_and_kept(self, nodes: Nodes) -> None:
        result = run("plan", "ha", *DISKS)
        assert "measuring the link 10.10.10.0/24" in result.output
        line = "The link 10.10.10.0/24, port 7789: 9.4 Gbit/s measured (10 Gbit/s told), 0.092 ms, MTU 9000 passes."
        assert line in result.output
        kept = journals.read_plan("ha")
        assert kept is not None and kept.measured == nodes.measured and nodes.measures == [7789]
        assert line in run("apply", "ha", "--yes").output and nodes.measures == [7789], "the plan has it"

    def test_nothing_is_sent_where_that_is_not_wanted_or_something_is_in_the_way(self, nodes: Nodes) -> None:
        result = run("plan", "ha", *DISKS, "--no-measure")
        assert "10 Gbit/s told, MTU 9000, not measured." in result.output and "as you have said" in result.output
        nodes.found["pve2"] = world.facts(2, disks=(world.disk(2, signatures=("ext4",)),))
        assert run("plan", "ha", *DISKS).exit_code == 1
        assert nodes.measures == []

    def test_a_link_that_cannot_be_measured_is_told_with_what_to_do(self, nodes: Nodes) -> None:
        nodes.measured = Measured({}, problem="port 7789 is in use on pve2", remedy="Look who has it")
        result = run("plan", "ha", *DISKS)
        assert result.exit_code == 0
        assert "10.10.10.0/24 could not be measured: port 7789 is in use on pve2." in result.output
        assert "Look who has it, then plan again." in result.output
        assert run("apply", "ha", "--yes").exit_code == 0

    def test_a_switch_that_drops_long_packets_is_in_the_way(self, nodes: Nodes) -> None:
        nodes.measured = Measured({}, 92, False)
        result = run("plan", "ha", *DISKS)
        assert (
            result.exit_code == 1
            and "9000 bytes, do not come through between 10.10.10.1 and 10.10.10.2" in result.output
        )
        assert journals.read_plan("ha") is None

    def test_each_plan_makes_another_file_system(self, nodes: Nodes) -> None:
        uuids = {json.loads(run("plan", "ha", *DISKS, "--json").output)["answers"]["uuid"] for _ in range(3)}
        assert len(uuids) == 3

    def test_what_is_in_the_way_is_told_with_its_remedy_and_no_plan_kept(self, nodes: Nodes) -> None:
        nodes.found["pve2"] = world.facts(2, disks=(world.disk(2, signatures=("ext4",)),))
        result = run("plan", "ha", *DISKS)
        assert result.exit_code == 1
        assert "pve2 holds something: ext4" in result.output and "--wipe pve2:/dev/sdb" in result.output
        assert journals.read_plan("ha") is None
        document = json.loads(run("plan", "ha", *DISKS, "--json").output)
        assert "ext4" in document["refused"][0]["cause"]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("plan",), "STORAGE"),
            (("plan", "ha"), "--disk pve1:DEVICE"),
            (("plan", "ha", "--disk", "pve1:/dev/sdb"), "--disk pve2:DEVICE"),
            (("plan", "ha", "--disk", "/dev/sdb"), "is not NODE:DEVICE"),
            (("plan", "ha", "--disk", "pve1:sdb"), "is not NODE:DEVICE"),
            (("plan", "ha", "--disk", "pve1:/dev/sdb", "--disk", "pve1:/dev/sdc"), "named twice"),
        ],
    )
    def test_without_a_terminal_what_is_missing_is_named(
        self, nodes: Nodes, arguments: tuple[str, ...], words: str
    ) -> None:
        result = CliRunner().invoke(app, ["setup", *arguments], standalone_mode=False)
        assert words in str(
            result.exception.format_message() if hasattr(result.exception, "format_message") else result.output
        )

    def test_on_a_terminal_it_asks_for_what_it_cannot_know(self, nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pvedrbdstor.cli.setup_ask.asks", lambda: True)
        result = CliRunner().invoke(app, ["setup", "plan"], input="mine\n\n\n10.10.10.0/24\n")
        assert result.exit_code == 0, result.output
        made = journals.read_plan("mine")
        assert made is not None and dict(made.answers.disks) == {"pve1": "/dev/sdb", "pve2": "/dev/sdb"}
        assert made.answers.network == "10.10.10.0/24"

    def test_one_that_was_begun_is_not_replaced_unless_told(self, nodes: Nodes) -> None:
        run("plan", "ha", *DISKS)
        nodes.fail = "pve1.up"
        run("apply", "ha", "--yes")
        assert "was begun" in raised(run("plan", "ha", *DISKS))
        anew = run("plan", "ha", *DISKS, "--anew")
        assert anew.exit_code == 0
        assert journals.read("ha") is None
        (kept,) = Path(paths.FOLDER).glob("ha.journal.json.*")
        assert f"is in {kept} now" in anew.output

    def test_an_earlier_one_stays_until_there_is_a_new_one(self, nodes: Nodes) -> None:
        run("plan", "ha", *DISKS)
        nodes.fail = "pve1.up"
        run("apply", "ha", "--yes")
        before = journals.read_plan("ha"), journals.read("ha")
        nodes.found["pve2"] = world.facts(2, disks=(world.disk(2, signatures=("ext4",)),))
        assert run("plan", "ha", *DISKS, "--anew").exit_code == 1
        assert (journals.read_plan("ha"), journals.read("ha")) == before

    def test_none_is_made_while_an_apply_works_on_the_earlier_one(self, nodes: Nodes) -> None:
        run("plan", "ha", *DISKS)
        before = journals.read_plan("ha")
        with setup_text.only_one("ha"):
            assert "works on it" in raised(run("plan", "ha", *DISKS, "--anew"))
        assert journals.read_plan("ha") == before

    def test_what_is_wiped_is_kept_exactly_and_when_that_was(self, nodes: Nodes) -> None:
        nodes.found["pve2"] = world.facts(2, disks=(world.disk(2, signatures=("ext4",)),))
        document = json.loads(run("plan", "ha", *DISKS, "--wipe", "pve2:/dev/sdb", "--json").output)
        (step,) = [step for step in document["steps"] if step["kind"] == "wipe"]
        assert step["about"]["exact"] == "what is on pve2" and int(step["about"]["planned"]) > 0

    def test_a_disk_that_drbd_s_configuration_names_is_not_shown_as_nobody_s(self) -> None:
        output = setup_text.facts(world.facts(1, disks=(world.disk(drbd=("r7",)), world.system_disk())))
        (line,) = [line for line in output.splitlines() if line.startswith("/dev/sdb")]
        assert line.rstrip().endswith("DRBD's configuration of 'r7'")

    def test_a_label_cannot_move_the_terminal_s_cursor(self, nodes: Nodes) -> None:
        disk = world.disk(2, signatures=("ext4 '\x1b[2J'",), model="\x1b]0;x\x07")
        nodes.found["pve2"] = world.facts(2, disks=(disk,))
        for words in ((), ("--wipe", "pve2:/dev/sdb")):
            output = run("plan", "ha", *DISKS, *words).output
            assert "<1b>[2J" in output and "\x1b" not in output
        assert "\x1b" not in setup_text.facts(nodes.found["pve2"])
        assert "\x1b" not in run("apply", "ha", "--yes").output


class TestApply:
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> str:
        """What a terminal would be asked; nobody agrees."""
        monkeypatch.setattr("pvedrbdstor.cli.setup.asks", lambda: True)
        monkeypatch.setattr("pvedrbdstor.cli.options.asks", lambda: True)
        return CliRunner().invoke(app, ["setup", "apply", "ha"], input="n\n").output

    def test_it_asks_for_the_devices_that_are_still_to_be_overwritten(
        self, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run("plan", "ha", *DISKS)
        asked = self.asked(monkeypatch)
        assert "Everything on /dev/sdb on pve1 and /dev/sdb on pve2 will be lost" in asked
        made = journals.read_plan("ha")
        assert made is not None and all(str(device.identity) in asked for device in made.devices)
        assert nodes.taken == []
        nodes.fail = "pve2.pv"
        run("apply", "ha", "--yes")
        assert "Everything on /dev/sdb on pve1 and /dev/sdb on pve2" in self.asked(monkeypatch)  # metadata are to come
        nodes.fail = "pve1.file-system"
        run("apply", "ha", "--yes")
        assert "Everything on /dev/drbd0 on pve1 will be lost" in self.asked(monkeypatch)
        nodes.fail = ""
        run("apply", "ha", "--yes")
        assert "will be lost" not in self.asked(monkeypatch)

    def test_without_a_terminal_nothing_is_destroyed_unless_it_was_said(self, nodes: Nodes) -> None:
        run("plan", "ha", *DISKS)
        assert "Say '--yes'" in raised(run("apply", "ha"))
        assert nodes.taken == []
        assert run("apply", "ha", "--yes").exit_code == 0
        assert run("apply", "ha").exit_code == 0, "nothing is left to be destroyed"

    def test_it_tells_each_step_and_what_came_of_it(self, nodes: Nodes) -> None:
        run("plan", "ha", *DISKS)
        result = run("apply", "ha", "--yes")
        assert result.exit_code == 0, result.output
        made = journals.read_plan("ha")
        assert made is not None and nodes.taken == [step.id for step in made.steps]
        assert "pve2: write DRBD's resource r0 ... done" in result.output
        assert "pve1: healthy." in result.output and "Storage ha is set up" in result.output

    def test_where_it_fails_it_stops_and_goes_on_from_there(self, nodes: Nodes) -> None:
        run("plan", "ha", *DISKS)
        nodes.fail = "pve1.file-system"
        message = raised(run("apply", "ha", "--yes"))
        assert "make the OCFS2 file system" in message and "setup apply ha" in message
        first, nodes.fail = list(nodes.taken), ""
        nodes.taken.clear()
        assert run("apply", "ha", "--yes").exit_code == 0
        assert "pve1.metadata" in first and "pve1.metadata" not in nodes.taken and "pve1.file-system" in nodes.taken

    def test_ctrl_c_says_that_it_can_go_on(self, nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
        run("plan", "ha", *DISKS)

        def interrupt(*_: object) -> Outcome:
            raise KeyboardInterrupt

        monkeypatch.setattr(remote.Both, "carry_out", interrupt)
        result = run("apply", "ha", "--yes")
        assert result.exit_code == 130 and "goes on from there" in result.output
        journal = journals.read("ha")
        assert journal is not None and journal.doing == "pve1.modules"

    def test_without_a_plan_there_is_nothing_to_do(self, nodes: Nodes) -> None:
        assert "there is no plan" in raised(run("apply", "ha", "--yes"))

    def test_another_plan_s_journal_is_none_of_it(self, nodes: Nodes) -> None:
        run("plan", "ha", *DISKS)
        journals.write("ha", journals.Journal("another").begin("pve1.up"))
        assert "another plan" in raised(run("apply", "ha", "--yes"))

    def test_as_json(self, nodes: Nodes) -> None:
        run("plan", "ha", *DISKS)
        document: dict[str, Any] = json.loads(
            CliRunner().invoke(app, ["setup", "apply", "ha", "--yes", "--json"]).stdout
        )
        assert document["finished"] is True and "pve2.status" in document["done"]


class TestUndo:
    def test_it_shows_what_takes_back_what_was_done_and_runs_nothing(self, nodes: Nodes) -> None:
        run("plan", "ha", *DISKS, "--resource", "r7")
        assert "nothing to take back" in run("undo", "ha").output
        nodes.fail = "pve1.file-system"
        run("apply", "ha", "--yes")
        nodes.taken.clear()
        output = run("undo", "ha").output
        assert "$ drbdadm wipe-md r7" in output and "Nothing of it was run" in output and "pvesm remove" not in output
        document = json.loads(run("undo", "ha", "--json").output)
        assert {"pve1", "pve2"} == {act["node"] for act in document["undo"]}
        assert nodes.taken == [] and "in Proxmox" not in output
        nodes.fail = ""
        run("apply", "ha", "--yes")
        output = run("undo", "ha").output
        assert "all that guests have on it would be lost" in output and "$ pvesm remove ha" in output

    def test_without_a_plan_there_is_nothing_to_say(self, nodes: Nodes) -> None:
        assert "there is no plan" in raised(run("undo", "ha"))


def test_a_step_of_another_version_is_refused() -> None:
    assert "no step of this version" in raised(run("step", "eJw="))


def test_facts_of_this_node_read_back() -> None:
    from pvedrbdstor.setup import facts

    result = run("facts", "--json")
    assert facts.parse(result.output).disks is not None
    assert "kernel" in run("facts").output


def test_what_is_on_a_device_is_told_to_the_other_node_and_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "none").write_text("")
    assert run("signatures", str(tmp_path / "none")).exit_code != 0
    with Loopback(4) as loop:
        found = json.loads(run("signatures", loop.device).output)
    assert found[""]["signatures"] == []
