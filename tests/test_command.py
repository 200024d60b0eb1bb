"""External programs: ended on time with all they started, their output bounded, nothing of ours given to them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from pvedrbdstor import command
from pvedrbdstor.errors import CallerGone, CommandFailed, CommandTimeout


def sh(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def children() -> list[int]:
    """The processes, zombies too, whose parent we are."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            found.append(int(path.parent.name))
    return found


def test_status_and_both_outputs_come_back_apart() -> None:
    result = command.run(sh("echo out; echo err >&2; exit 3"), timeout=5, check=False)
    assert (result.status, result.stdout, result.stderr) == (3, "out\n", "err\n")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo why >&2; echo progress; exit 4", "(exit status 4): why"),
        ("echo only this; exit 1", "(exit status 1): only this"),
        ("exit 1", "(exit status 1): it said nothing"),
        ("kill -TERM $$", "(killed by signal 15): it said nothing"),
    ],
)
def test_a_failure_quotes_the_program(script: str, said: str) -> None:
    with pytest.raises(CommandFailed) as caught:
        command.run(sh(script), timeout=5)
    assert said in caught.value.message
    assert "/bin/sh -c" in caught.value.message


@pytest.mark.parametrize("argv", [["/no/such/program"], ["/etc/passwd"]])
def test_a_program_that_cannot_be_started_is_a_failure_of_the_same_kind(argv: list[str]) -> None:
    with pytest.raises(CommandFailed, match=f"'{argv[0]}' failed \\(not started\\)"):
        command.run(argv, timeout=5)


def test_a_folder_that_is_gone_is_a_failure_of_the_same_kind() -> None:
    with pytest.raises(CommandFailed, match="No such file"):
        command.run(["/bin/true"], timeout=5, cwd="/no/such/folder")


def test_output_beyond_the_limit_is_dropped_and_does_not_block() -> None:
    result = command.run(sh("head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2"), timeout=10)
    assert len(result.stdout) == len(result.stderr) == command.OUTPUT_LIMIT


def test_a_long_complaint_is_quoted_from_its_end() -> None:
    with pytest.raises(CommandFailed) as caught:
        command.run(sh("head -c 100000 /dev/zero | tr '\\0' x >&2; echo the reason >&2; exit 1"), timeout=5)
    assert len(caught.value.message) < 3000
    assert "the reason" in caught.value.message


def test_output_that_is_no_text_does_no_harm() -> None:
    assert command.run(sh("printf '\\377\\000ok'"), timeout=5).stdout == "\ufffd\0ok"


def test_a_program_that_takes_too_long_is_ended_with_all_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    before = children()
    began = time.monotonic()
    with pytest.raises(CommandTimeout, match="within 0 s"):
        command.run(sh(f"trap '' TERM; sleep 60 & echo $! $$ > {pids}; wait"), timeout=0.3)
    assert time.monotonic() - began < 2
    assert children() == before, "a zombie is left"
    for pid in map(int, pids.read_text().split()):
        deadline = time.monotonic() + 2
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            assert time.monotonic() < deadline, f"process {pid} lives on"
            time.sleep(0.01)


def test_a_program_that_closes_its_output_and_goes_on_is_ended_too() -> None:
    before = children()
    with pytest.raises(CommandTimeout):
        command.run(sh("exec >/dev/null 2>&1; sleep 60"), timeout=0.3)
    assert children() == before


@pytest.mark.parametrize("timeout", [0, -1])
def test_no_time_left_is_a_timeout(timeout: float) -> None:
    with pytest.raises(CommandTimeout):
        command.run(["/bin/sleep", "60"], timeout=timeout)


@pytest.mark.parametrize("script", ["sleep 60", "while :; do echo x; done", "exec >/dev/null 2>&1; sleep 60"])
def test_the_caller_can_stop_it(script: str) -> None:
    before, calls = children(), []

    def gone() -> None:
        calls.append(time.monotonic())
        if len(calls) > 2:
            raise CallerGone(method="alloc_image")

    began = time.monotonic()
    with pytest.raises(CallerGone):
        command.run(sh(script), timeout=5, poll=gone)
    assert time.monotonic() - began < 3
    assert children() == before


def test_its_environment_is_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LD_PRELOAD_X", "PERL5LIB", "LANG", "HOME"):
        monkeypatch.setenv(name, "/tmp/evil")
    told = command.run(["/usr/bin/env"], timeout=5).stdout.split()
    assert sorted(told) == ["HOME=/root", "LC_ALL=C.UTF-8", f"PATH={command.PATH}"]


def test_arguments_are_not_for_a_shell() -> None:
    assert command.run(["/bin/echo", "$(id) `id` ; | &"], timeout=5).stdout == "$(id) `id` ; | &\n"


def test_it_reads_nothing_from_us_and_has_no_terminal() -> None:
    assert command.run(["/bin/cat"], timeout=5).stdout == ""
    session = command.run(sh("ps -o sid= -p $$; echo $$"), timeout=5).stdout.split()
    assert session[0] == session[1]


def test_it_inherits_no_descriptor_but_those_it_is_given(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as ours, (tmp_path / "lock").open("w") as given:
        os.set_inheritable(ours.fileno(), True)
        listed = command.run(["/bin/ls", "-l", "/proc/self/fd"], timeout=5, keep_fds=[given.fileno()]).stdout
    assert "/lock" in listed
    assert "/secret" not in listed


def test_no_descriptor_of_ours_is_left_open() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    command.run(["/bin/true"], timeout=5)
    with pytest.raises(CommandFailed):
        command.run(["/bin/false"], timeout=5)
    with pytest.raises(CommandTimeout):
        command.run(["/bin/sleep", "60"], timeout=0.05)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_signals_that_we_ignore_do_not_end_it_and_kill_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker ignores SIGTERM, and so do the programs it runs: they are ended by SIGKILL."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert command.run(sh("kill -TERM $$; echo still here"), timeout=5).stdout == "still here\n"
        with pytest.raises(CommandTimeout):
            command.run(["/bin/sleep", "60"], timeout=0.1)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_is_spawned_lives_on_apart_from_us_with_what_it_was_given(tmp_path: Path) -> None:
    output, done, before = tmp_path / "output", tmp_path / "done", children()
    with (tmp_path / "given").open("w") as given:
        script = f"echo said; echo $PATH >>/proc/self/fd/{given.fileno()}; touch {done}"
        command.spawn(sh(script), keep_fds=(given.fileno(),), output=str(output))
    deadline = time.monotonic() + 5
    while not done.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert output.read_text() == "said\n"
    assert (tmp_path / "given").read_text() == f"{command.PATH}\n"
    assert set(children()) <= set(before)


def test_what_cannot_be_spawned_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "PATH", str(tmp_path))
    with pytest.raises(CommandFailed, match="not started"):
        command.spawn(["/bin/true"])


def test_spawning_into_a_file_that_cannot_be_written_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        command.spawn(["/bin/true"], output=str(tmp_path / "no" / "such"))
