"""Carrying a plan out: in order, stopping at the first failure, going on after a kill at any place; nothing on other devices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor import faultpoints
from pvedrbdstor.errors import SetupFileBroken, SetupRefused, SetupStepFailed
from pvedrbdstor.setup import facts as facts_of
from pvedrbdstor.setup import journal as journals
from pvedrbdstor.setup import paths, undo, values
from pvedrbdstor.setup.remote import request, step_of
from pvedrbdstor.setup.steps import ONCE, printable
from tests.setup import world
from tests.setup.applying import Nodes, run


@pytest.fixture(autouse=True)
def no_hook() -> Iterator[None]:
    yield
    faultpoints.hook = None


def test_all_steps_are_taken_in_their_order() -> None:
    plan, nodes = world.planned(), Nodes()
    run(plan, nodes)
    assert nodes.taken == [(step.id, False) for step in plan.steps]
    assert nodes.saved is not None and nodes.saved.finished


def test_the_first_failure_stops_it_and_says_what_is_there() -> None:
    plan = world.planned()
    nodes = Nodes(fail="pve1.metadata")
    with pytest.raises(SetupStepFailed) as caught:
        run(plan, nodes)
    assert nodes.taken[-1] == ("pve1.metadata", False)
    assert "on node pve1" in caught.value.message and "The disks were written to" in caught.value.message
    early = Nodes(fail="pve1.resource")
    with pytest.raises(SetupStepFailed, match="no disk was touched"):
        run(plan, early)


@pytest.mark.parametrize("untouched", [False, True])
def test_a_step_that_was_refused_before_it_changed_anything_was_not_begun(untouched: bool) -> None:
    """Else the next try would take what another has put there meanwhile for its own half."""
    plan, nodes = world.planned(), Nodes(fail="pve1.metadata", untouched=untouched)
    for _ in range(2):
        with pytest.raises(SetupStepFailed):
            run(plan, nodes)
    assert [again for name, again in nodes.taken if name == "pve1.metadata"] == [False, not untouched]


def test_a_node_that_cannot_be_reached_is_a_failure_of_its_step() -> None:
    with pytest.raises(SetupStepFailed, match="did not finish within 1 s"):
        run(world.planned(), Nodes(gone=True))


@given(st.data())
def test_killed_anywhere_it_goes_on_and_takes_no_step_of_harm_twice_that_has_ended(data: st.DataObject) -> None:
    plan, nodes = world.planned(), Nodes()
    places = [f"setup.{when}.{step.id}" for step in plan.steps for when in ("begun", "acted")]
    for place in sorted(data.draw(st.lists(st.sampled_from(places), max_size=4)), key=places.index):
        run(plan, nodes, place)
    run(plan, nodes)
    assert nodes.saved is not None and nodes.saved.finished
    once = [step.id for step in plan.steps if step.kind in ONCE]
    for name in once:
        tries = [again for taken, again in nodes.taken if taken == name]
        assert tries
        assert all(tries[1:]), "a second time only where it was begun and had not ended"
    assert list(dict.fromkeys(name for name, _ in nodes.taken)) == [step.id for step in plan.steps]


def test_what_a_reboot_undoes_is_looked_at_again() -> None:
    plan, nodes = world.planned(), Nodes()
    run(plan, nodes, "setup.begun.pve1.file-system")
    before = [name for name, _ in nodes.taken]
    nodes.taken.clear()
    run(plan, nodes)
    again = [step.id for step in plan.steps if step.id in before and step.kind not in ONCE]
    assert [name for name, _ in nodes.taken][: len(again) + 1] == [*again, "pve1.file-system"]


def test_of_a_plan_that_is_finished_nothing_is_taken_again() -> None:
    plan, nodes = world.planned(), Nodes()
    run(plan, nodes)
    nodes.taken.clear()
    nodes.found = {}
    run(plan, nodes)
    assert [name for name, _ in nodes.taken] == ["pve1.status", "pve2.status"]


@pytest.mark.parametrize("change", [{"size": 1 << 39}, {"identity": "another"}])
def test_another_device_of_that_name_is_refused_also_later(change: dict[str, object]) -> None:
    plan = world.planned()
    for begun in (False, True):
        nodes = Nodes()
        if begun:
            run(plan, nodes, "setup.begun.pve2.metadata")
        nodes.taken.clear()
        nodes.found["pve2"] = world.facts(2, disks=(world.disk(2, **change),))
        with pytest.raises(SetupRefused, match="another device"):
            run(plan, nodes)
        assert nodes.taken == []


def test_a_device_that_is_drbd_s_by_now_may_have_another_name() -> None:
    plan, nodes = world.planned(), Nodes()
    run(plan, nodes, "setup.begun.pve2.up")
    nodes.found["pve2"] = world.facts(2, disks=(world.disk(2, path="/dev/sdc", names=("/dev/sdc",)),))
    run(plan, nodes)
    assert nodes.saved is not None and nodes.saved.finished


def test_a_device_that_got_something_since_the_plan_is_refused() -> None:
    nodes = Nodes()
    nodes.found["pve2"] = world.facts(2, disks=(world.disk(2, signatures=("ext4",)),))
    with pytest.raises(SetupRefused, match="ext4"):
        run(world.planned(), nodes)
    assert nodes.taken == []


def test_nodes_that_have_changed_otherwise_are_refused_naming_what_would_differ() -> None:
    nodes = Nodes()
    nodes.found = {node: world.with_files(each, r0="resource r0 { }") for node, each in nodes.found.items()}
    with pytest.raises(SetupRefused, match=r"have changed since the plan was made.*write DRBD's resource"):
        run(world.planned(), nodes)
    assert nodes.taken == []


def test_what_is_there_after_a_failure_is_what_was_begun_and_no_more() -> None:
    plan = world.planned()
    for untouched, words in ((True, "no disk was touched"), (False, "written to, or may have been: /dev/sdb on pve1.")):
        with pytest.raises(SetupStepFailed) as caught:
            run(plan, Nodes(fail="pve1.pv", untouched=untouched))
        assert words in caught.value.message and "no guest" not in caught.value.message
    with pytest.raises(SetupStepFailed, match="may be in storage"):
        run(plan, Nodes(fail="pve1.entry"))


def test_what_a_device_s_label_says_cannot_move_the_terminal_s_cursor() -> None:
    assert printable("ext4 'a\x1b[2J\nb'") == "ext4 'a<1b>[2J<0a>b'"


class TestUndo:
    def test_what_was_not_begun_is_not_taken_back(self) -> None:
        plan = world.planned()
        assert undo.acts(plan, journals.of(plan)) == []

    def test_it_names_the_plan_s_own_resource_from_above_downwards_and_removes_nothing_shared(self) -> None:
        plan, nodes = world.planned(resource="r7"), Nodes()
        run(plan, nodes)
        assert nodes.saved is not None
        acts = undo.acts(plan, nodes.saved)
        words = [act.words for act in acts if act.node == "pve1" and act.words]
        assert words == [
            ("pvedrbdstor", "mirror", "down", "ha"),
            ("pvesm", "remove", "ha"),
            ("drbdadm", "down", "r7"),
            ("drbdadm", "wipe-md", "r7"),
            ("lvremove", "mirror/r7"),
            ("vgremove", "mirror"),
            ("pvremove", "/dev/sdb"),
            ("rm", "/etc/udev/rules.d/99-pvedrbdstor-r7.rules"),
            ("rm", "/etc/drbd.d/r7.res"),
        ]
        assert any("leave /etc/ocfs2/cluster.conf where another" in act.why for act in acts)


class TestOnDisk:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(paths, "FOLDER", str(tmp_path / "setup"))
        return tmp_path / "setup"

    def test_a_plan_reads_back_whole_and_is_for_root_alone(self, folder: Path) -> None:
        plan = world.planned(wipe={"pve1": "/dev/sdb"})
        path = Path(journals.write_plan(plan))
        assert journals.read_plan("ha") == plan
        assert path.stat().st_mode & 0o777 == 0o600

    def test_a_journal_reads_back(self) -> None:
        journal = journals.of(world.planned()).begin("a").end("a").begin("b")
        journals.write("ha", journal)
        assert journals.read("ha") == journal

    def test_what_is_not_understood_is_an_error_with_its_place(self, folder: Path) -> None:
        path = Path(journals.write_plan(world.planned()))
        data = json.loads(path.read_text())
        data["steps"][3]["kind"] = "format"
        path.write_text(json.dumps(data))
        with pytest.raises(SetupFileBroken, match="steps"):
            journals.read_plan("ha")

    @pytest.mark.parametrize(("key", "value"), [("version", "0.0.1"), ("format", 0)])
    @pytest.mark.parametrize(
        ("state", "remedy"),
        [("", "plan again with"), ("begun", "take back by hand"), ("finished", "mirror status")],
    )
    def test_a_plan_of_another_version_is_refused_with_what_to_do(
        self, key: str, value: object, state: str, remedy: str
    ) -> None:
        plan = world.planned()
        path = Path(journals.write_plan(plan))
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
        journal = journals.of(plan).begin("a")
        if state:
            journals.write("ha", journal if state == "begun" else journals.finish(journal.end("a")))
        with pytest.raises(SetupRefused, match="is of pvedrbdstor") as caught:
            journals.read_plan("ha")
        assert remedy in caught.value.message

    def test_none_is_none(self) -> None:
        assert journals.read_plan("ha") is None and journals.read("ha") is None
        assert journals.put_away("ha") == []


def test_facts_and_steps_go_to_the_other_node_and_back() -> None:
    facts = world.facts()
    assert facts_of.parse(json.dumps(facts_of.as_json(facts))) == facts
    for step in world.planned().steps:
        assert step_of(request(step, True)) == (step, True)


def test_a_step_with_debian_s_lvm_conf_fits_into_a_command_line() -> None:
    text = "".join(
        f'\t# Line {at} of many that explain an option, with "quotes" in it, \udc80.\n' for at in range(2000)
    )
    found = {node: world.with_files(each, lvm=text) for node, each in world.nodes().items()}
    (step,) = [step for step in world.planned(found).steps if step.id == "pve2.filters"]
    word = request(step, False)
    assert len(text) > 120_000 and len(word) < 131_072
    assert step_of(word) == (step, False)


@pytest.mark.parametrize("word", ["", "%", "AAAA", request(world.planned().steps[0], True)[:-8]])
def test_a_request_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(values.Malformed):
        step_of(word)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1}', '{"format": 1, "version": 3}'])
def test_facts_of_another_version_are_refused(text: str) -> None:
    with pytest.raises(values.Malformed):
        facts_of.parse(text)


def test_a_plan_of_the_same_facts_has_the_same_journal() -> None:
    plan = world.planned()
    assert journals.of(plan) == journals.of(world.planned())
    assert journals.of(plan) != journals.of(replace(plan, lead="pve2"))
