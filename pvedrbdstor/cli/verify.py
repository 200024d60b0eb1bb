"""`pvedrbdstor verify`: whether both nodes hold the same data, and where they do not."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from pvedrbdstor import command, nodes
from pvedrbdstor.cli import output, verify_rejoin, verify_write_path
from pvedrbdstor.cli.interrupt import ENDINGS, EXIT_STATUS, Interrupt
from pvedrbdstor.cli.options import json_option, storage_argument
from pvedrbdstor.cli.progress import Progress
from pvedrbdstor.cli.session import Session, pass_session
from pvedrbdstor.cli.verify_metrics import metrics_options
from pvedrbdstor.errors import BadConfig, BadSize, CommandFailed, CommandTimeout, Error, SystemCallFailed
from pvedrbdstor.mirror import readers
from pvedrbdstor.pve.storage_cfg import Storage
from pvedrbdstor.sizes import parse_size
from pvedrbdstor.verify import last

if TYPE_CHECKING:
    from pvedrbdstor.verify.explain import Explanation
    from pvedrbdstor.verify.job import Asked
    from pvedrbdstor.verify.report import Outcome

CANNOT = 2
"""The exit status for whatever is neither known to be equal nor known to differ."""
_TELL_SECONDS = 30.0
_OF_A_COMPARISON = ("mode", "fraction", "granularity", "rate", "latency", "resume", "wait")
_MODES = ("sample", "allocated", "full", "kernel", "rejoin")
_STOPPING = b"\npvedrbdstor: stopping; '--resume' will go on where it was. Ctrl-C again ends it at once, and the last minute may be lost.\n"
_FOLLOWING = (
    b"\npvedrbdstor: stopping; DRBD's own verify goes on by itself, and can be followed again. "
    b"Ctrl-C again ends this command at once.\n"
)


class Granularity(click.ParamType):
    """Bytes of a block: a power of two from 4 KiB to 1 MiB."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            size = value if isinstance(value, int) else parse_size(str(value))
        except BadSize as error:
            self.fail(error.message, param, ctx)
        if size & (size - 1) or not 4096 <= size <= 1 << 20:
            self.fail(f"{value} is not a power of two from 4k to 1M", param, ctx)
        return size


class Percent(click.ParamType):
    """A part of the whole, as 1% or 0.01."""

    name = "percent"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        try:
            part = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            part = 0.0
        if not 0 < part <= 1:
            self.fail(f"{text} is no part of the whole, such as 1% or 0.01", param, ctx)
        return part


@click.command(short_help="Compare the copies of both nodes, block by block.")
@storage_argument
@click.option(
    "--mode",
    type=click.Choice(_MODES),
    help="What is compared: random blocks and some of each file (sample, the default), what the file system uses (allocated), "
    "all of it (full), all of it by DRBD's own verify (kernel), whose findings are then looked at, or what was written while the nodes were "
    "apart the last time (rejoin).",
)
@click.option("--fraction", type=Percent(), help="Of the device, with a sample. Default: 1%.")
@click.option("--granularity", type=Granularity(), help="Of one digest, from 4k to 1M. Default: 64k; 4k of a rejoin.")
@click.option(
    "--rate", type=click.FloatRange(min=0.1), metavar="MIB", help="Read at most so many MiB a second on each node."
)
@click.option(
    "--latency",
    type=click.FloatRange(min=0),
    default=50.0,
    show_default=True,
    metavar="MS",
    help="Read more slowly while writes of the guests take longer than this on average; 0: do not mind them.",
)
@click.option("--resume", "resumed", is_flag=True, help="Go on with the comparison that was interrupted last.")
@click.option(
    "--wait", is_flag=True, help="With --mode rejoin: begin when the resync has ended and both nodes have it up."
)
@click.option(
    "--write-path",
    is_flag=True,
    help="Write probe files instead, follow each write to the other node's disk, and try QEMU's aio and cache modes.",
)
@click.option("--serve", is_flag=True, hidden=True, help="Be the other side: for the node that leads.")
@click.option("--modified", is_flag=True, hidden=True, help="Tell what the kernel's log says: for the node that leads.")
@click.option(
    "--rejoined", hidden=True, help="Tell what this node has noted of the last rejoin: for the node that leads."
)
@click.option("--found-equal", hidden=True, help="Take what the node that led has found equal, as JSON.")
@metrics_options
@json_option
@pass_session
def verify(
    session: Session,
    storage: str,
    mode: str | None,
    fraction: float | None,
    granularity: int | None,
    rate: float | None,
    latency: float,
    resumed: bool,
    wait: bool,
    write_path: bool,
    serve: bool,
    modified: bool,
    rejoined: str | None,
    found_equal: str | None,
) -> None:
    """Compare the copies of STORAGE on both nodes while guests go on; nothing is written to the mirror (but with --write-path).

    Both nodes read their own disks past all caches at the same time and compare digests; the other node is asked by ssh as root, as
    Proxmox's nodes trust each other. What differs at first is looked at again until it is certain. Ctrl-C keeps what is known.

    Ends with 0 where all is equal, 1 where something differs for certain, even if it was stopped then, 2 where it could not be compared, or not
    all of it.

    Example: pvedrbdstor verify ha --mode allocated
    """
    if write_path:
        beside = [f"--{name}" for name in _OF_A_COMPARISON if _given(name)]
        if beside:
            raise click.UsageError(f"--write-path compares nothing: it does not go with {', '.join(beside)}")
        raise click.exceptions.Exit((verify_write_path.serve if serve else verify_write_path.run)(session, storage))
    if serve:
        sys.exit(_serve(session, storage))
    if modified:
        verify_rejoin.tell_modified(session.storage(storage).config)
        return
    if rejoined is not None:
        verify_rejoin.answer(session.storage(storage).config, rejoined)
        return
    if found_equal is not None:
        _take_back(session.storage(storage).config.id, found_equal)
        return
    if wait and mode != "rejoin":
        raise click.UsageError("--wait is for --mode rejoin, which is told when a resync has ended")
    if resumed and (mode, fraction, granularity) != (None, None, None):
        raise click.UsageError("--resume goes on with the mode, fraction and granularity of before")
    if mode == "kernel" and (_given("rate") or _given("latency")):
        raise click.UsageError(
            "--rate and --latency do not slow DRBD's own verify down: resync-rate, or c-max-rate, in disk { } of the resource does"
        )
    if fraction is not None and mode not in (None, "sample"):
        raise click.UsageError("--fraction is of a sample")
    began = time.time()
    found: Storage | None = None
    try:
        from pvedrbdstor.verify import job
        from pvedrbdstor.verify.pace import Pace
        from pvedrbdstor.verify.plan import Mode

        asked = job.Asked(
            Mode(mode or "sample"),
            granularity or (4096 if mode == "rejoin" else 65536),
            fraction or 0.01,
            Pace(rate * (1 << 20) if rate is not None else None, latency or None),
            resumed,
        )
        found = one = session.storage(storage)

        def compare() -> tuple[int, bool]:
            return _compare(session, one, asked)

        status = verify_rejoin.when_ready(found.config, compare, _say) if wait else compare()[0]
    except (Error, OSError) as error:
        failure = error if isinstance(error, Error) else _failed(error)
        told = mode != "rejoin" or found is None or verify_rejoin.keeps_failure(found.config, error)
        if told and not resumed and not isinstance(error, BadConfig):  # resumed, the mode is not known here
            _keep(storage, last.failed(mode or "sample", session.node, began, time.time(), _cause(failure)))
        _fail(failure, session)
    raise click.exceptions.Exit(status)


def _given(name: str) -> bool:
    """Whether the command line has this option, and not by default."""
    name = "resumed" if name == "resume" else name
    return click.get_current_context().get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _compare(session: Session, storage: Storage, asked: Asked) -> tuple[int, bool]:
    """The exit status, and whether that is all: it came to its end, or somebody has ended it. Raises Error, OSError."""
    from pvedrbdstor.verify import job, report
    from pvedrbdstor.verify.plan import Mode

    said = _FOLLOWING if asked.mode is Mode.KERNEL and not asked.resume else _STOPPING
    with readers.reading(storage.config.id), Interrupt(signals=ENDINGS, at_once=True) as later:
        with Interrupt(said, ENDINGS) as interrupt, Progress("Comparing", rate=True) as progress:
            outcome, interrupted = job.run(storage.config, asked, job.Watcher(progress, _say, interrupt.gone))
            later.asked = interrupt.asked
        check = last.check_of(outcome, time.time())
        _keep(storage.config.id, check)
        if last.of_all(check):
            _tell_other(storage.config.id, outcome.there, check)
        told = _explained(outcome, storage, interrupt.hurried)
        text = report.text(outcome, list(told.lines()), list(told.advice()))
        with suppress(OSError):  # nobody reads it any more: what was found stays for --resume
            session.answer({**report.as_json(outcome), **told.as_json()}, text)
            job.told(outcome)
    status = EXIT_STATUS if interrupted and not outcome.diverged else outcome.exit_status
    return status, interrupted or outcome.stopped is None


def _explained(outcome: Outcome, storage: Storage, hurried: bool) -> Explanation:
    """What lies where they differ, which takes a while; the report goes without it where somebody does not want to wait."""
    from pvedrbdstor.verify import explain

    if outcome.diverged and hurried:
        return explain.Explanation(missing="that was interrupted.")
    if outcome.diverged:
        _say("what lies there is looked up; Ctrl-C prints the report without it.")
    try:
        return explain.explain(outcome, storage.config, storage.aliases, outcome.minor)
    except KeyboardInterrupt:
        return explain.Explanation(missing="that was interrupted.")


def _say(sentence: str) -> None:
    with suppress(OSError):  # the terminal may be gone
        output.say(sentence)


def _serve(session: Session, storage: str) -> int:
    """Frames go over standard input and output, which nothing else may use."""
    from pvedrbdstor.verify import peer
    from pvedrbdstor.verify.copy import LocalCopy

    read_fd, write_fd = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    ending = peer.Ending(storage, session.node)
    signal.signal(signal.SIGTERM, lambda _number, _frame: ending.ask())
    with readers.reading(storage):
        return peer.serve(read_fd, write_fd, lambda: LocalCopy(session.storage(storage).config), ending=ending)


def _keep(storage: str, check: last.Check) -> None:
    """For `mirror status` and for Prometheus. That it cannot be kept changes nothing of what was found."""
    try:
        last.keep(storage, check)
    except OSError as error:
        _say(f"'mirror status' will not know of it: {last.path(storage)} cannot be written ({error.strerror}).")


def _tell_other(storage: str, there: str, check: last.Check) -> None:
    """That all is equal, as a difference that was found there is no more. Each node keeps what it has found itself."""
    words = ["verify", "--found-equal", json.dumps(asdict(check)), storage]
    try:
        command.run(nodes.line(there, words), timeout=_TELL_SECONDS)
    except (CommandFailed, CommandTimeout) as error:
        _say(
            f"{there} was not told ({nodes.why_not(error)}): if it has found a difference before, its 'mirror status' tells it until "
            f"'pvedrbdstor verify {storage} --mode allocated' has found none there."
        )
    except KeyboardInterrupt:
        _say(f"{there} was not told.")


def _take_back(storage: str, text: str) -> None:
    """For the node that led. Raises UsageError, SystemCallFailed."""
    try:
        last.take_back(storage, last.from_text(text))
    except ValueError as error:
        raise click.UsageError(f"--found-equal: {error}") from error
    except OSError as error:
        raise _failed(error) from error


def _cause(error: Error) -> str:
    """Why it could not be compared, without the name of the storage and what to do."""
    return str(error.fields.get("cause", error.message))


def _fail(error: Error, session: Session) -> None:
    """Whatever the error: the copies were not compared, and that is one exit status."""
    output.print_error(error.message, kind=error.kind, code=error.code, exit_status=CANNOT, as_json=session.as_json)
    raise click.exceptions.Exit(CANNOT)


def _failed(error: OSError) -> SystemCallFailed:
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "the mirror"
    reason = error.strerror or str(error)
    return SystemCallFailed(
        operation="Reading or writing", path=where, reason=reason, remedy="Is this run as root? Look at 'dmesg'"
    )
