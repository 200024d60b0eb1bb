"""`pvedrbdstor verify --mode rejoin`: what it waits for, when it ends, and what `mirror status` and Prometheus say of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pvedrbdstor import files
from pvedrbdstor.cli import verify_rejoin
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd.generation_ids import Identifiers
from pvedrbdstor.errors import VerifyRefused
from pvedrbdstor.verify import in_flight, last, metrics, rejoin
from pvedrbdstor.verify.last import Check, Record
from pvedrbdstor.verify.plan import Mode
from pvedrbdstor.verify.rejoin import SOURCE, Kept, Note
from pvedrbdstor.verify.report import Outcome, as_json, text
from tests.cli.comparing import CLEAN, Job
from tests.cli.conftest import CommandLine

GIB = 1 << 30
OLD, NEW = 0x365BCF83F6A9C584, 0xEDD02BC5AF3D82D6
MET = Identifiers(NEW, 0, (OLD + (1 << 48), 0))
CONFIG = StorageConfig("ha", "/mnt/pve/ha", "r0")
NOTED = Kept(Note(SOURCE, "a", rejoin.key(OLD), f"{NEW:016X}", 1000.0, 1000.0, GIB), ((0, 4096),))
REJOIN = replace(CLEAN, mode="rejoin", granularity=4096, compared=4096, parted=900.0, met=1000.0, to_compare=4096)


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejoin, "FOLDER", str(tmp_path / "notes"))
    monkeypatch.setattr(last, "FOLDER", str(tmp_path / "last"))


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only sleeping moves. Both nodes have it up from the beginning, and all is noted."""
    times: list[float] = []
    monkeypatch.setattr(verify_rejoin.time, "sleep", times.append)
    monkeypatch.setattr(verify_rejoin.time, "monotonic", lambda: sum(times))
    monkeypatch.setattr(verify_rejoin, "_up_on_both", lambda config: True)
    monkeypatch.setattr(verify_rejoin, "_identifiers", lambda config: MET)
    rejoin.write("r0", 0, NOTED)
    return times


def answers(*found: tuple[int, bool] | Exception) -> Callable[[], tuple[int, bool]]:
    left = list(found)

    def compare() -> tuple[int, bool]:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return compare


REFUSED = VerifyRefused(storage="ha", cause="a resync is running", remedy="Wait")


def when_ready(compare: Callable[[], tuple[int, bool]]) -> int:
    return verify_rejoin.when_ready(CONFIG, compare, lambda _: None)


def test_it_waits_until_both_nodes_have_it_up(slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [False, False, True]
    monkeypatch.setattr(verify_rejoin, "_up_on_both", lambda config: looks.pop(0))
    assert when_ready(answers((0, True))) == 0 and len(slept) == 2


def test_what_is_refused_or_stopped_meanwhile_is_begun_again(slept: list[float]) -> None:
    assert when_ready(answers(REFUSED, (2, False), (1, True))) == 1 and len(slept) == 2


def test_who_ends_it_has_ended_it(slept: list[float]) -> None:
    assert when_ready(answers((130, True))) == 130 and not slept


def test_it_does_not_wait_for_ever(slept: list[float]) -> None:
    with pytest.raises(VerifyRefused):
        when_ready(answers(REFUSED))
    assert sum(slept) > 86400


@pytest.mark.usefixtures("slept")
def test_it_does_not_wait_for_what_will_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify_rejoin, "_identifiers", lambda config: replace(MET, history=(NEW, OLD)))
        with pytest.raises(VerifyRefused, match="a resync is running"):
            when_ready(answers(REFUSED))
    rejoin.write("r0", 0, replace(NOTED, note=replace(NOTED.note, checked=1001.0)))
    assert when_ready(answers(REFUSED)) == 0, "it has been compared already, which is nobody's failure"
    rejoin.write("r0", 0, replace(NOTED, note=replace(NOTED.note, size=0, short="no bitmap"), ranges=()))
    with pytest.raises(VerifyRefused, match="has not been compared yet"):
        when_ready(answers((0, True)))


def meet(noted: float, **words: object) -> None:
    rejoin.write("r0", 0, replace(NOTED, note=replace(NOTED.note, noted=noted, **words)))  # type: ignore[arg-type]


@pytest.mark.usefixtures("slept")
def test_what_was_noted_during_a_comparison_is_compared_too() -> None:
    """systemd drops a start of what still runs. The worse verdict stands."""
    left: list[tuple[int, float | None]] = [(1, 2000.0), (0, None)]

    def compare() -> tuple[int, bool]:
        status, met = left.pop(0)
        meet(2000.0, checked=None if met else 2001.0)
        return status, True

    assert when_ready(compare) == 1 and not left


@pytest.mark.usefixtures("slept")
def test_what_another_one_has_compared_meanwhile_is_no_failure() -> None:
    def compare() -> tuple[int, bool]:
        meet(1000.0, checked=1001.0)
        raise REFUSED

    assert when_ready(compare) == 0


def test_a_try_that_fails_later_takes_no_verdicts_place(cli: CommandLine, played: Job) -> None:
    played.outcome = REJOIN
    rejoin.write("r0", 0, replace(NOTED, note=replace(NOTED.note, checked=1001.0)))
    assert cli("verify", "ha", "--mode", "rejoin").exit_code == 0
    known = last.read("ha", rejoin=True)
    played.outcome = REFUSED
    assert cli("verify", "ha", "--mode", "rejoin").exit_code == 2
    assert last.read("ha", rejoin=True) == known
    meet(2000.0)
    busy = VerifyRefused(storage="ha", cause="another one runs", remedy="Wait")
    busy.__cause__ = files.Held("lock", "7")
    played.outcome = busy
    assert cli("verify", "ha", "--mode", "rejoin").exit_code == 2
    assert last.read("ha", rejoin=True) == known, "another comparison runs"
    played.outcome = REFUSED
    assert cli("verify", "ha", "--mode", "rejoin").exit_code == 2
    after = last.read("ha", rejoin=True)
    assert after is not None and after.last.verdict == last.COULD_NOT


def test_a_rejoin_is_compared_in_small_blocks(cli: CommandLine, played: Job) -> None:
    played.outcome = REJOIN
    result = cli("verify", "ha", "--mode", "rejoin")
    assert result.exit_code == 0, result.output
    assert (played.asked[0].mode, played.asked[0].granularity) == (Mode.REJOIN, 4096)
    assert (
        "equal wherever they were compared" in result.stdout and "The rest of the device was not read." in result.stdout
    )
    assert last.read("ha") is None
    assert last.read("ha", rejoin=True) is not None
    document = json.loads(cli("verify", "ha", "--mode", "rejoin", "--json").stdout)
    assert document["rejoin"] == {"parted": 900.0, "met": 1000.0, "bytes": 4096}
    assert as_json(CLEAN)["rejoin"] is None


def test_a_time_that_is_not_known_is_not_told(played: Job) -> None:
    assert "at a time that is not known" in text(replace(REJOIN, parted=None))
    left_out = replace(REJOIN, much=True, remarks=("What b alone had written is not known.",))
    assert left_out.exit_status == 2 and "not all of it was compared" in text(left_out)
    assert isinstance(left_out, Outcome)


@pytest.mark.parametrize("options", [["--wait"], ["--wait", "--mode", "full"], ["--wait", "--write-path"]])
def test_waiting_is_for_a_rejoin(cli: CommandLine, played: Job, options: list[str]) -> None:
    assert cli("verify", "ha", *options).exit_code == 2 and not played.asked


def test_the_other_node_is_told_what_it_asks_for(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    rejoin.write("r0", 0, NOTED)
    assert rejoin.from_json(json.loads(cli("verify", "ha", "--rejoined", "show").stdout)) == NOTED
    assert cli("verify", "ha", "--rejoined", "x").exit_code != 0
    monkeypatch.setattr(verify_rejoin, "_minor", lambda config: 0)
    monkeypatch.setattr(in_flight, "own", lambda minor: ((0, 4096),))
    assert json.loads(cli("verify", "ha", "--modified").stdout) == [[0, 4096]]


def test_status_says_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_rejoin, "_identifiers", lambda config: MET)
    assert verify_rejoin.status_of(CONFIG) == (None, "")
    rejoin.write("r0", 0, NOTED)
    document, line = verify_rejoin.status_of(CONFIG)
    assert document is not None and document["stage"] == "pending" and "not compared yet" in line
    assert "'systemctl start pvedrbdstor-rejoin@ha'" in line, "an interrupted run does not start by itself"
    Path(rejoin.path("r0", 0)).write_text("{")
    document, line = verify_rejoin.status_of(CONFIG)
    assert document is not None and "unknown" in document and "not known" in line


def test_prometheus_is_not_told_an_older_rejoins_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    check = Check("rejoin", "a", "clean", 1.0, 2.0)
    last.keep("ha", check)
    assert verify_rejoin.last_of(CONFIG) == Record(check, check, check)
    rejoin.write("r0", 0, NOTED)
    assert verify_rejoin.last_of(CONFIG) is None
    told = metrics.text({"ha": None}, {"ha": None})
    assert 'rejoin_verdict{storage="ha",verdict="never"} 1' in told and "rejoin_end_timestamp_seconds{" not in told


def test_prometheus_is_told_of_rejoins_where_there_was_one() -> None:
    check = Check("rejoin", "a", "clean", 1.0, 2.0)
    told = metrics.text({"ha": None, "new": None}, {"ha": Record(check, check)})
    assert 'pvedrbdstor_verify_rejoin_verdict{storage="ha",verdict="clean"} 1' in told
    assert 'pvedrbdstor_verify_rejoin_end_timestamp_seconds{storage="ha"} 2' in told
    assert 'rejoin_verdict{storage="new"' not in told and "rejoin" not in metrics.text({"ha": None})
