"""The timeline of a cut: the measured clusters, each race at its edge, and what holds for any settings."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.fencing.timeline import Timeline, timeline
from pvedrbdstor.fencing.times import Inputs, Span, most_ping_int, recommended

GOOD = Inputs(
    ping_int=3.0,
    connect_int=3.0,
    ping_timeout=1.0,
    token=3.0,
    consensus=3.6,
    qdevice=True,
    qdevice_timeout=10.0,
    qdevice_sync_timeout=30.0,
    dead=60.0,
    idle=30.0,
)
MEASURED = replace(GOOD, ping_int=5.0)
"""The clusters of the measurements."""
THREE_NODES = replace(GOOD, token=3.65, consensus=4.38, qdevice=False, qdevice_timeout=None, qdevice_sync_timeout=None)


def unfit(inputs: Inputs) -> list[str]:
    return [race.code for race in timeline(inputs).races if race.fits is not True]


def span(line: Timeline, name: str) -> Span:
    (found,) = [event.span for event in line.events if name in event.name]
    return found


def test_the_recommended_settings_fit() -> None:
    assert unfit(GOOD) == []
    assert timeline(GOOD).fits
    assert recommended(GOOD) == GOOD
    assert recommended(Inputs()) == GOOD


def test_three_nodes_fit_without_a_qdevice() -> None:
    assert unfit(THREE_NODES) == []
    assert "qnetd-silent" not in [race.code for race in timeline(THREE_NODES).races]


@pytest.mark.parametrize(
    ("name", "earliest", "latest"),
    [
        ("DRBD freezes", 5.2, 11.0),
        ("forms a ring", 5.4, 6.4),
        ("given the vote is quorate", 6.3, 12.6),
        ("no longer quorate", 9.0, 16.6),
    ],
)
def test_what_was_measured_lies_in_its_span(name: str, earliest: float, latest: float) -> None:
    found = span(timeline(MEASURED), name)
    assert found.earliest is not None and found.latest is not None
    assert found.earliest <= earliest + 0.001
    assert found.latest >= latest - 0.001


def test_the_measured_clusters_could_read_stale_data() -> None:
    """Case k: b's DRBD froze at 10.2 s where a had won at 6.3 s."""
    assert unfit(MEASURED) == ["detection"]
    assert recommended(MEASURED) == GOOD


def test_the_tie_break_is_over_before_the_dead_time() -> None:
    won = span(timeline(MEASURED), "lower id goes on")
    assert won.latest == pytest.approx(11 + 20 + 12.6 + 6)


def test_a_cut_of_o2net_alone_resets_as_late_as_measured() -> None:
    found = span(timeline(MEASURED), "o2net")
    assert found.earliest is not None and found.latest is not None
    assert found.earliest <= 97 < 99 <= found.latest <= 100


@pytest.mark.parametrize(
    ("code", "good", "bad"),
    [
        ("detection", replace(GOOD, ping_int=3.0), replace(GOOD, ping_int=4.0)),
        ("late-ring", replace(GOOD, token=3.5), replace(GOOD, token=4.0)),
        ("reconnect", replace(GOOD, connect_int=3.5), replace(GOOD, connect_int=4.0)),
        ("pause", replace(GOOD, token=1.0), replace(GOOD, token=0.5)),
        ("lookback", replace(GOOD, qdevice_timeout=16.0), replace(GOOD, qdevice_timeout=17.0)),
        ("ordinary-win", replace(GOOD, dead=30.0), replace(GOOD, dead=26.0)),
        ("tie-break", replace(GOOD, dead=56.0), replace(GOOD, dead=54.0)),
        ("qnetd-silent", replace(GOOD, dead=54.0), replace(GOOD, dead=50.0)),
        ("o2net", replace(GOOD, dead=20.0), replace(GOOD, dead=10.0)),
        ("guard-watchdog", replace(GOOD, guard_watchdog=5.0), replace(GOOD, guard_watchdog=4.0)),
        ("ha", replace(GOOD, ping_int=36.0), replace(GOOD, ping_int=39.0)),
    ],
)
def test_each_race_at_its_edge(code: str, good: Inputs, bad: Inputs) -> None:
    assert code not in unfit(good)
    assert code in unfit(bad)
    (race,) = [race for race in timeline(bad).races if race.code == code]
    assert race.otherwise
    assert race.setting


def test_a_setting_that_is_not_known_does_not_fit() -> None:
    for name in ("ping_int", "ping_timeout", "connect_int", "token", "consensus", "dead", "idle", "guard_watchdog"):
        line = timeline(replace(GOOD, **{name: None}))
        assert not line.fits, name
        assert any(race.fits is None for race in line.races), name
    assert not timeline(replace(GOOD, qdevice=None, qdevice_timeout=None, qdevice_sync_timeout=None)).fits


def remedy(inputs: Inputs, code: str) -> str:
    (race,) = [race for race in timeline(inputs).races if race.code == code]
    return race.remedy("ha", "r0")


def test_the_remedy_for_the_dead_time_names_the_threshold_that_fits() -> None:
    slow = replace(THREE_NODES, token=4.5, consensus=5.5, ping_int=2.0, dead=40.0)
    told = remedy(slow, "tie-break")
    assert "O2CB_HEARTBEAT_THRESHOLD=31" in told
    assert "'pvedrbdstor mirror down ha' on all of them" in told
    assert unfit(slow) == ["tie-break"]
    assert unfit(replace(slow, dead=60.0)) == []


def test_a_dead_time_that_will_do_is_left_alone() -> None:
    told = remedy(replace(GOOD, ping_int=20.0), "tie-break")
    assert "'ping-int 3;'" in told
    assert "'timeout 25;'" in told
    assert "drbdadm adjust r0" in told
    assert "'sync_timeout: 30000'" in remedy(replace(GOOD, qdevice_sync_timeout=60.0), "qnetd-silent")
    assert "'token: 3000'" in remedy(replace(THREE_NODES, token=15.0, consensus=18.0), "lookback")


TIMES = {
    "ping_int": st.integers(1, 120).map(float),
    "connect_int": st.integers(1, 120).map(float),
    "ping_timeout": st.integers(1, 300).map(lambda tenths: tenths * 0.1),
    "token": st.floats(0.1, 60),
    "consensus": st.floats(0.1, 90),
    "qdevice_timeout": st.floats(0, 120),
    "qdevice_sync_timeout": st.floats(0, 120),
    "dead": st.integers(0, 300).map(lambda beats: beats * 2.0),
    "idle": st.floats(0, 120),
    "guard_watchdog": st.floats(0, 60),
    "ha_watchdog": st.floats(0, 120),
}
ANY = st.builds(
    Inputs, qdevice=st.sampled_from([None, True, False]), **{name: st.none() | times for name, times in TIMES.items()}
)
LONGER_IS_BETTER = ("dead", "idle", "guard_watchdog", "ha_watchdog")
SHORTER_IS_BETTER = ("ping_int", "connect_int", "qdevice_timeout", "qdevice_sync_timeout")


@given(ANY, st.sampled_from(LONGER_IS_BETTER + SHORTER_IS_BETTER), st.floats(0, 100))
def test_more_room_never_makes_a_race_unfit(inputs: Inputs, name: str, more: float) -> None:
    value = getattr(inputs, name)
    if value is None:
        return
    roomy = replace(inputs, **{name: value + more if name in LONGER_IS_BETTER else max(0.0, value - more)})
    assert set(unfit(roomy)) <= set(unfit(inputs))


@given(ANY)
def test_what_is_recommended_always_fits_and_changes_nothing_that_does(inputs: Inputs) -> None:
    wanted = recommended(inputs)
    assert unfit(wanted) == []
    assert wanted.qdevice == (inputs.qdevice is not False)
    assert wanted.ping_int is not None and wanted.ping_int <= most_ping_int(inputs)
    if timeline(inputs).fits:
        changed = {field.name for field in fields(Inputs) if getattr(inputs, field.name) != getattr(wanted, field.name)}
        assert changed <= {
            "ping_timeout",
            "qdevice_timeout",
            "qdevice_sync_timeout",
            "dead",
            "guard_watchdog",
            "ha_watchdog",
        }


@given(ANY)
def test_spans_are_spans_and_unknown_ones_come_last(inputs: Inputs) -> None:
    events = timeline(inputs).events
    known = [event.span.latest is not None and event.span.earliest is not None for event in events]
    assert known == sorted(known, reverse=True)
    earliest = []
    for event in events:
        if event.span.earliest is not None and event.span.latest is not None:
            assert event.span.earliest <= event.span.latest + 1e-9
            earliest.append(event.span.earliest)
    assert earliest == sorted(earliest)


@given(ANY)
def test_nothing_is_known_to_fit_when_nothing_is_known(inputs: Inputs) -> None:
    blank = {name: None for name in TIMES if name not in ("guard_watchdog", "ha_watchdog")}
    races = timeline(replace(inputs, qdevice=None, **blank)).races  # type: ignore[arg-type]
    assert [race.code for race in races if race.fits is not None] in ([], ["guard-watchdog"])
