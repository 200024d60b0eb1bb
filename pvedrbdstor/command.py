"""The one place that runs external programs: argument list, fixed PATH, a timeout, bounded output, never a shell."""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pvedrbdstor.errors import CommandFailed, CommandTimeout

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
OUTPUT_LIMIT = 1 << 20
_TAIL = 2000
_LOOK = 0.25  # seconds between two calls of poll
_SPAWN_SECONDS = 5


@dataclass(frozen=True)
class Result:
    """What a program left behind: exit status, standard output and standard error (each at most OUTPUT_LIMIT bytes, unless told otherwise)."""

    status: int
    stdout: str
    stderr: str


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    cwd: str | None = None,
    keep_fds: Sequence[int] = (),
    check: bool = True,
    poll: Callable[[], None] | None = None,
    limit: int = OUTPUT_LIMIT,
) -> Result:
    """Run ``argv`` and wait at most ``timeout`` seconds. Of each output the first ``limit`` bytes are kept.

    ``keep_fds`` stay open in the child: a lock handed over this way is held until the child ends, even if we do not
    live that long. ``poll`` is called a few times a second and may raise to end the child.

    Raises CommandTimeout, and CommandFailed when ``check`` is set and the status is not 0.
    """
    deadline = time.monotonic() + timeout
    child = _start(argv, subprocess.PIPE, cwd, keep_fds)
    try:
        out, err = _collect(child, argv, deadline, timeout, poll, limit)
    except BaseException:
        _end(child)
        raise
    result = Result(child.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
    if check and result.status != 0:
        said = (result.stderr.strip() or result.stdout.strip() or "it said nothing")[-_TAIL:].rstrip(".")
        raise CommandFailed(command=shlex.join(argv), status=_describe(result.status), output=said)
    return result


def start(argv: Sequence[str], *, talks: bool = False) -> subprocess.Popen[bytes]:
    """Start a program that goes on until it is ended with stop(); its standard output is a pipe, the rest is dropped. talks: its
    standard input is one, too.

    Raises CommandFailed where it cannot be started.
    """
    return _start(argv, subprocess.DEVNULL, None, (), subprocess.PIPE if talks else subprocess.DEVNULL)


def stop(child: subprocess.Popen[bytes]) -> None:
    """End a program of start(), with all that it started; one that is stuck in the kernel is left behind."""
    _end(child)


def _start(
    argv: Sequence[str], stderr: int, cwd: str | None, keep_fds: Sequence[int], stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            list(argv),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=cwd,
            env={"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": "/root"},
            pass_fds=tuple(keep_fds),
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(
            command=shlex.join(argv), status="not started", output=os.strerror(error.errno or 0)
        ) from error


def spawn(argv: Sequence[str], *, keep_fds: Sequence[int] = (), output: str = os.devnull) -> None:
    """Start ``argv`` as a process that lives on without us, in a session of its own; what it prints replaces ``output``.

    ``keep_fds`` stay open in it, under the same numbers. Raises CommandFailed when it cannot be started, OSError when
    ``output`` cannot be written.
    """
    with open(output, "wb") as sink:
        try:
            child = subprocess.Popen(
                ["setsid", "--fork", *argv],  # noqa: S607 - found in PATH, as all programs are
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd="/",
                env={"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": "/root"},
                pass_fds=tuple(keep_fds),
            )
            status = child.wait(_SPAWN_SECONDS)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise CommandFailed(command=shlex.join(argv), status="not started", output=reason) from error
        except subprocess.TimeoutExpired:
            child.kill()
            raise CommandTimeout(command=shlex.join(argv), seconds=_SPAWN_SECONDS) from None
    if status != 0:
        raise CommandFailed(command=shlex.join(argv), status=_describe(status), output=f"see {output}")


def _collect(
    child: subprocess.Popen[bytes],
    argv: Sequence[str],
    deadline: float,
    timeout: float,
    poll: Callable[[], None] | None,
    limit: int,
) -> tuple[bytes, bytes]:
    """Read both pipes to their end, keep the first ``limit`` bytes of each, and wait for the child."""
    assert child.stdout is not None and child.stderr is not None
    kept: dict[int, bytearray] = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}
    with selectors.DefaultSelector() as selector:
        for fd in kept:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise CommandTimeout(command=shlex.join(argv), seconds=round(timeout))
            if poll is not None:
                poll()
            for key, _ in selector.select(min(left, _LOOK)):
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fd)
                room = limit - len(kept[key.fd])
                kept[key.fd] += data[:room]
    _wait(child, argv, deadline, timeout, poll)
    out, err = bytes(kept[child.stdout.fileno()]), bytes(kept[child.stderr.fileno()])
    child.stdout.close()
    child.stderr.close()
    return out, err


def _wait(
    child: subprocess.Popen[bytes],
    argv: Sequence[str],
    deadline: float,
    timeout: float,
    poll: Callable[[], None] | None,
) -> None:
    """Wait for a child that has closed its output, which need not be its end."""
    while True:
        left = deadline - time.monotonic()
        try:
            child.wait(min(max(0.1, left), _LOOK))
            return
        except subprocess.TimeoutExpired:
            if left <= 0:
                raise CommandTimeout(command=shlex.join(argv), seconds=round(timeout)) from None
        if poll is not None:
            poll()


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the child's process group; do not wait long for one that is stuck in the kernel."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    try:
        child.wait(1)
    except subprocess.TimeoutExpired:
        pass
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()


def _describe(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"
