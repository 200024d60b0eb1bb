"""/proc/drbd and the generation, on the outputs of real clusters and on arbitrary text."""

from __future__ import annotations

from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.drbd.generation import Generation, from_proc_drbd, from_version
from pvedrbdstor.drbd.proc_drbd import Counters, Flags, ProcDevice, ProcDrbd, Progress, parse
from tests.drbd.support import FILES, output_of, state_of

HEAD = "version: 8.4.11 (api:1/proto:86-101)\nsrcversion: 059B1B470318F053F5077D5 \n"
DEVICE = " 0: cs:Connected ro:Primary/Primary ds:UpToDate/UpToDate C r-----\n"
COUNTERS = "    ns:1 nr:2 dw:3 dr:4 al:5 bm:6 lo:7 pe:8 ua:9 ap:10 ep:11 wo:f oos:12\n"


def text_of(name: str) -> str:
    text = output_of(name, "cat /proc/drbd")
    assert text is not None
    return text


def device(text: str) -> ProcDevice:
    (found,) = parse(text).devices.values()
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_capture_tells_its_generation(name: str) -> None:
    assert from_proc_drbd(text_of(name)) is (Generation.V8_4 if name.startswith("8.4/") else Generation.V9)


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("8.4/")])
def test_every_capture_of_8_4_agrees_with_events2(name: str) -> None:
    found, state = parse(text_of(name)).devices, state_of(name)
    assert set(found) == {device.minor for device in state.devices}
    for minor, proc in found.items():
        (own,) = state.resources
        assert proc.role == own.role
        assert proc.flags.suspended == bool(own.suspended)
        assert [proc.disk] == [device.disk for device in state.devices if device.minor == minor]
        assert proc.counters is not None
        assert (proc.progress is not None) == (proc.connection in ("SyncSource", "SyncTarget", "VerifyS", "VerifyT"))


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("9/")])
def test_9_has_only_its_version_there(name: str) -> None:
    assert parse(text_of(name)) == ProcDrbd({}, frozenset())


def test_a_running_resync() -> None:
    found = device(text_of("8.4/F3-resync-in-progress.b.txt"))
    assert (found.connection, found.protocol, found.verifying) == ("SyncTarget", "C", False)
    assert found.progress == Progress(False, 6.7, 59572, 60632, 198, 264, 300, False)
    assert found.counters == Counters(0, 2177, 2803644, 415733, 20, 0, 0, 2, 0, 0, 1, 59572)


def test_a_running_verify_with_grouped_speeds() -> None:
    found = device(text_of("8.4/F5b-verify-running.a.txt"))
    assert found.verifying
    assert found.progress == Progress(True, 1.6, 2068380, 2097052, 71, 28672, 20480, False)


def test_frozen_io_and_the_requests_that_wait() -> None:
    found = device(text_of("8.4/T3a-fencing-suspended.b.txt"))
    assert found.flags == Flags(True, False, False, False, None, False)
    assert found.counters is not None
    assert (found.counters.pe, found.counters.ap) == (8, 8)


def test_standalone_has_no_protocol() -> None:
    assert device(text_of("8.4/F2-splitbrain-standalone.a.txt")).protocol is None


def test_every_flag_is_read() -> None:
    assert device(HEAD + DEVICE.replace("r-----", "sapubs")).flags == Flags(True, True, True, True, "b", True)
    assert device(HEAD + DEVICE.replace("r-----", "r---d-")).flags == Flags(False, False, False, False, "d", False)


def test_large_volumes_are_told_in_mib_and_a_stalled_resync_is_seen() -> None:
    progress = "\t[>....................] sync'ed:  0.3% (1048000/1048576)M\n"
    finish = "\tfinish: 123:04:05 speed: 1,234 (5,678 -- 9) want: 10,240 K/sec (stalled)\n"
    found = device(HEAD + DEVICE.replace("Connected", "SyncTarget") + COUNTERS + progress + finish).progress
    assert found == Progress(False, 0.3, 1048000 * 1024, 1048576 * 1024, 443045, 1234, 10240, True)


def test_progress_without_its_second_line_tells_no_time() -> None:
    progress = "\t[>....................] sync'ed:  0.3% (10/20)K\n"
    assert device(HEAD + DEVICE + COUNTERS + progress).progress == Progress(False, 0.3, 10, 20, None, None, None, False)


def test_minors_are_told_apart_with_gaps_and_unconfigured_ones_between() -> None:
    second = DEVICE.replace(" 0:", "12:").replace("UpToDate/UpToDate", "Diskless/UpToDate")
    found = parse(HEAD + DEVICE + "\n 3: cs:Unconfigured\n\n" + second + COUNTERS)
    assert found.unconfigured == {3}
    assert found.devices[0].counters is None
    assert found.devices[12].disk == "Diskless"
    assert found.devices[12].counters == Counters(*range(1, 13))


def test_a_line_cut_off_is_passed_over() -> None:
    assert parse(HEAD + DEVICE[:-1]).devices == {}
    assert device(HEAD + DEVICE + COUNTERS[:-1]).counters is None


@pytest.mark.parametrize("name", ["8.4/F3-resync-in-progress.b.txt", "8.4/F5b-verify-running.a.txt"])
def test_text_cut_off_anywhere_gives_no_value_that_was_not_there(name: str) -> None:
    text = text_of(name)
    whole = astuple(device(text))
    for end in range(len(text)):
        for found in parse(text[:end]).devices.values():
            for value, true in zip(astuple(found), whole, strict=True):
                assert value is None or value == true or isinstance(value, tuple)
            assert found.progress is None or found.progress.left == whole[-1][2]


PARTS = st.sampled_from([HEAD, DEVICE, COUNTERS, "\tfinish: 0:00:01 speed: , (,) K/sec\n", "sync'ed: 1.0% (1/2)K\n"])


@given(st.lists(PARTS | st.text(max_size=20), max_size=6).map("".join))
def test_arbitrary_text_gives_values_or_nothing(text: str) -> None:
    for found in parse(text).devices.values():
        assert found.minor >= 0
        assert found.progress is None or found.progress.left >= 0
    from_proc_drbd(text)
    from_version(text)


@pytest.mark.parametrize(
    ("text", "generation"),
    [
        ("version: 8.4.11 (api:1/proto:86-101)\n", Generation.V8_4),
        ("version: 9.2.18 (api:2/proto:86-121)\n", Generation.V9),
        ("version: 8.3.16 (api:88/proto:86-97)\n", None),
        ("", None),
        ("drbd version: 8.4.11\n", None),
    ],
)
def test_the_generation_by_proc(text: str, generation: Generation | None) -> None:
    assert from_proc_drbd(text) is generation


@pytest.mark.parametrize(
    ("code", "generation"),
    [("0x08040b", Generation.V8_4), ("0x090303", Generation.V9), ("0x000000", None), ("0x080310", None)],
)
def test_the_generation_by_the_tools(code: str, generation: Generation | None) -> None:
    text = f"DRBDADM_API_VERSION=2\nDRBD_KERNEL_VERSION_CODE={code}\nDRBDADM_VERSION_CODE=0x091600\n"
    assert from_version(text) is generation
