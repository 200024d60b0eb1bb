"""One request in a process of its own, and export and import through pipes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backend import PATIENCE, request_line
from tests.service.fakes import Gates

ROOT = Path(__file__).parents[2]


def run_line(folder: Path, data: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(_command(folder), input=data, capture_output=True, cwd=ROOT, timeout=PATIENCE, check=False)


def _command(folder: Path, *request: str) -> list[str]:
    return [sys.executable, "-m", "tests.service.oneshot_process", str(folder), *request]


def start(folder: Path, *request: str) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(_command(folder, *request), stdin=pipe, stdout=pipe, stderr=pipe, cwd=ROOT)


@pytest.fixture
def gates(tmp_path: Path) -> Gates:
    gates = Gates(tmp_path)
    for name in ("started", "gate", "gone", "later", "done"):
        gates.make(name)
    return gates


def kind(line: bytes) -> str:
    return str(json.loads(line)["error"]["data"]["kind"])


def last_line(text: bytes) -> bytes:
    assert text.endswith(b"\n")
    return text.splitlines()[-1]


def test_a_request_on_stdin_is_answered_on_stdout(tmp_path: Path) -> None:
    done = run_line(tmp_path, request_line("echo", vmid=100))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"]["params"] == {"vmid": 100}


@pytest.mark.parametrize(
    ("data", "expected", "status"),
    [
        (request_line("fail"), "VolumeMissing", 66),
        (request_line("bug"), "InternalError", 70),
        (request_line("die"), "InternalError", 70),
        (b"no json\n", "ParseError", 64),
        (b"", "ParseError", 64),
        (b"x" * (2 << 20), "InvalidRequest", 64),
    ],
    ids=["error", "bug", "death", "no-json", "nothing", "endless"],
)
def test_a_failure_is_answered_and_is_the_exit_status(tmp_path: Path, data: bytes, expected: str, status: int) -> None:
    done = run_line(tmp_path, data)
    assert (kind(done.stdout), done.returncode) == (expected, status)


def test_a_deadline_holds_although_the_call_hangs(tmp_path: Path, gates: Gates) -> None:
    process = start(tmp_path)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdin.write(request_line("gate", gate="gate", timeout=0.2))
    process.stdin.close()
    assert kind(process.stdout.read()) == "DeadlineExceeded"
    assert process.wait(PATIENCE) == 75
    gates.open("gate")
    process.stdout.close()
    process.stderr.close()


def test_what_is_left_for_later_is_done_before_the_end(tmp_path: Path, gates: Gates) -> None:
    process = start(tmp_path)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(request_line("later"))
    process.stdin.flush()
    assert "result" in json.loads(process.stdout.readline())
    gates.open("later", "cleared up")
    assert gates.wait("done") == "cleared up"
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


@pytest.mark.parametrize("how", ["signal", "hang up"])
def test_a_call_learns_that_its_caller_is_gone(tmp_path: Path, gates: Gates, how: str) -> None:
    process = start(tmp_path)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(request_line("until_gone"))
    process.stdin.flush()
    gates.wait("started")
    if how == "signal":
        process.terminate()
    else:
        process.stdout.close()
    assert gates.wait("gone") == "False True"
    process.stdin.close()
    assert process.wait(PATIENCE) == 0
    process.stdout.close()
    assert process.stderr is not None
    process.stderr.close()


# --- streams ---


def stream(method: str, **params: object) -> str:
    return request_line(method, **params).decode().rstrip()


def test_an_export_writes_stdout_and_answers_last_on_stderr(tmp_path: Path) -> None:
    process = start(tmp_path, stream("volume_export", data="abc" * 1000))
    out, err = process.communicate(timeout=PATIENCE)
    assert out == b"abc" * 1000
    assert json.loads(last_line(err))["result"] is None
    assert process.returncode == 0


def test_an_import_reads_stdin_and_reports_its_progress(tmp_path: Path) -> None:
    process = start(tmp_path, stream("volume_import", progress=True))
    out, err = process.communicate(b"x" * 300_000, timeout=PATIENCE)
    assert (out, process.returncode) == (b"", 0)
    *progress, response = err.splitlines()
    assert json.loads(response)["result"] == {"bytes": 300_000, "timeout": 7 * 86400}
    assert progress == [b"transferred 512 B of 2 KiB (25 %)"], "one line for two reports in the same moment"


def test_a_request_may_name_a_shorter_time(tmp_path: Path) -> None:
    process = start(tmp_path, stream("volume_import", timeout=90))
    _, err = process.communicate(b"", timeout=PATIENCE)
    assert json.loads(last_line(err))["result"]["timeout"] == 90


@pytest.mark.parametrize("request_text", ["no json", stream("echo"), "\udcff"])
def test_what_has_no_stream_is_refused(tmp_path: Path, request_text: str) -> None:
    process = start(tmp_path, request_text)
    _, err = process.communicate(timeout=PATIENCE)
    assert kind(last_line(err)) in ("ParseError", "InvalidRequest")
    assert process.returncode == 64


def test_an_export_whose_reader_goes_ends_with_caller_gone(tmp_path: Path) -> None:
    process = start(tmp_path, stream("volume_export", data="x", times=1_000_000))
    assert process.stdout is not None and process.stderr is not None and process.stdin is not None
    process.stdout.read(10)
    process.stdout.close()
    assert kind(last_line(process.stderr.read())) == "CallerGone"
    assert process.wait(PATIENCE) == 75
    process.stdin.close()
    process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_an_import_that_waits_for_data(tmp_path: Path, gates: Gates, number: int) -> None:
    process = start(tmp_path, stream("volume_import", started=True))
    assert process.stdin is not None and process.stderr is not None and process.stdout is not None
    process.stdin.write(b"some")
    process.stdin.flush()
    gates.wait("started")
    os.kill(process.pid, number)
    assert kind(last_line(process.stderr.read())) == "CallerGone"
    assert process.wait(PATIENCE) == 75
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()


def test_an_import_notices_that_nobody_reads_its_answer(tmp_path: Path, gates: Gates) -> None:
    process = start(tmp_path, stream("volume_import", until_gone=True))
    assert process.stdin is not None and process.stderr is not None and process.stdout is not None
    gates.wait("started")
    process.stderr.close()
    assert process.wait(PATIENCE) == 75
    process.stdin.close()
    process.stdout.close()
