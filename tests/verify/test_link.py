"""The leader against a peer that says anything at all: an error that names it, at once, with little memory, and no process left."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvedrbdstor.errors import VerifyRefused, VerifyStopped
from pvedrbdstor.verify import hello as hellos
from pvedrbdstor.verify import link as links
from pvedrbdstor.verify import remote, wire
from pvedrbdstor.verify import state as states
from pvedrbdstor.verify.channel import Channel, Silent
from pvedrbdstor.verify.link import Link
from pvedrbdstor.verify.wire import Answer, Frame, Request, Type
from tests.examples import examples
from tests.verify.world import GOOD, hello

OWN = hello("a", 1 << 20)
HELLO = wire.encode(wire.document(Type.HELLO, hellos.as_json(hello("b", 1 << 20))))
STATE = wire.encode(wire.document(Type.STATE, states.as_json(GOOD)))
ASKED = Request(1, ((0, 65536),), 4096)
ANSWER = wire.encode(wire.answer(Answer(1, bytes(256), {3: 5})))


def talk(stream: bytes) -> object:
    """What comes of a peer that says this and ends, whatever it is asked."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(stream)
        file.flush()
        with Link(["sh", "-c", f"cat {file.name}; exec cat >/dev/null 2>&1"], "ha", "b") as link:
            link.greet(OWN)
            link.ask(ASKED)
            link.ask_state()
            answers = []
            while len(answers) < 2:
                if not link.poll(0.3):
                    raise TimeoutError
                answers.append(link.answer())
            return answers


def test_a_peer_that_keeps_to_it_is_understood() -> None:
    assert talk(HELLO + ANSWER + STATE) == [Answer(1, bytes(256), {3: 5}), GOOD]


@settings(max_examples=examples(40), deadline=None)
@given(st.binary(max_size=200), st.integers(0, len(HELLO + ANSWER + STATE)), st.booleans())
def test_a_hostile_or_cut_off_stream_is_an_error_and_never_a_hang(junk: bytes, at: int, replace: bool) -> None:
    good = HELLO + ANSWER + STATE
    stream = good[:at] + junk + (good[at + len(junk) :] if replace else b"")
    began = time.monotonic()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(links, "START_SECONDS", 0.3)
            assert talk(stream) == [Answer(1, bytes(256), {3: 5}), GOOD] or replace
    except (VerifyRefused, VerifyStopped) as error:
        assert "b " in error.message or "node" in error.message or "copies" in error.message
    except TimeoutError:
        assert stream != good
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "stream",
    [
        HELLO + STATE + ANSWER,
        HELLO + wire.encode(Frame(Type.BYE)),
        HELLO + HELLO,
        HELLO + wire.encode(wire.answer(Answer(2, bytes(256)))),
        HELLO + wire.encode(wire.answer(Answer(1, bytes(240)))),
        HELLO + wire.encode(wire.request(ASKED)),
        HELLO + ANSWER + wire.encode(Frame(Type.STATE, b"{}")),
    ],
)
def test_answers_to_what_was_not_asked_stop_it(stream: bytes) -> None:
    with pytest.raises(VerifyStopped, match="b does not keep to the protocol"):
        talk(stream)


def test_an_error_of_the_other_side_is_told_in_its_words_and_no_others() -> None:
    words = {"kind": "VerifyRefused", "cause": "b is\nDiskless\x1b[31m", "remedy": "Attach it", "message": "x" * 5000}
    with pytest.raises(VerifyStopped) as raised:
        talk(HELLO + wire.encode(wire.document(Type.ERROR, words)))
    assert raised.value.fields["cause"] == "b is Diskless [31m" and raised.value.fields["remedy"] == "Attach it"


def test_much_talk_on_standard_error_is_not_kept() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with (
        pytest.raises(VerifyRefused, match="the last words"),
        Link(["sh", "-c", "head -c 100000000 /dev/zero >&2; echo >&2; echo the last words >&2"], "ha", "b") as link,
    ):
        link.greet(OWN)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(VerifyRefused, match="/nowhere/ssh could not be started"), Link(["/nowhere/ssh"], "ha", "b"):
        pass


def test_a_process_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(remote, "_END_SECONDS", 0.2)
    with Link(
        ["sh", "-c", f"echo $$ >{tmp_path}/pid; trap '' TERM HUP; while :; do sleep 0.1; done"], "ha", "b"
    ) as link:
        while not (tmp_path / "pid").exists():
            time.sleep(0.01)
    assert link._remote.status == -9


def test_a_peer_that_takes_nothing_holds_nobody_up() -> None:
    """Its end of the pipe is full."""
    read_fd, write_fd = os.pipe()
    channel = Channel(read_fd, write_fd)
    with pytest.raises(Silent):
        for _ in range(100):
            channel.send(Frame(Type.STATE, bytes(60000)), 0.1)
    os.close(read_fd)
    os.close(write_fd)


def test_a_peer_that_takes_nothing_and_never_stops_talking_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It answers what nobody asks, and reads nothing; an error that it might tell yet is not waited for for ever."""
    (tmp_path / "hello").write_bytes(HELLO)
    (tmp_path / "state").write_bytes(STATE * 100)
    monkeypatch.setattr(links, "_SEND_SECONDS", 0.2)
    monkeypatch.setattr(remote, "_END_SECONDS", 0.2)
    talker = f"cd {tmp_path}; cat hello; while cat state; do :; done"
    began = time.monotonic()
    with (
        pytest.raises(VerifyStopped, match="b does not answer any more"),
        Link(["sh", "-c", talker], "ha", "b") as link,
    ):
        link.greet(OWN)
        while time.monotonic() - began < 20:
            link.ask_state()
    assert time.monotonic() - began < 20


def test_a_trickle_is_as_good_as_silence() -> None:
    child = subprocess.Popen(
        ["sh", "-c", "for letter in P D V 1 a b c d e f; do printf $letter; sleep 0.1; done"], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    null = os.open("/dev/null", os.O_WRONLY)
    with pytest.raises(Silent):
        Channel(child.stdout.fileno(), null).receive(0.3)
    os.close(null)
    child.kill()
    child.wait()
    child.stdout.close()
