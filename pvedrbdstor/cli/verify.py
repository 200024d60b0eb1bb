"""`pvedrbdstor verify`: whether both nodes hold the same data, and where they do not."""

from __future__ import annotations

import os
import sys

import click

from pvedrbdstor.cli import output
from pvedrbdstor.cli.interrupt import EXIT_STATUS, Interrupt
from pvedrbdstor.cli.options import json_option, storage_argument
from pvedrbdstor.cli.progress import Progress
from pvedrbdstor.cli.session import Session, pass_session
from pvedrbdstor.cli.sizes import parse_size
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import BadSize, Error, SystemCallFailed

CANNOT = 2
"""The exit status for whatever is neither known to be equal nor known to differ."""
_MODES = ("full",)
_STOPPING = (
    b"\npvedrbdstor: stopping; '--resume' will go on where it was. Ctrl-C again ends it at once, and nothing is kept.\n"
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


@click.command(short_help="Compare the copies of both nodes, block by block.")
@storage_argument
@click.option("--mode", type=click.Choice(_MODES), help="What is compared: all of it (full).")
@click.option("--granularity", type=Granularity(), help="Of one digest, from 4k to 1M. Default: 64k.")
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
@click.option("--serve", is_flag=True, hidden=True, help="Be the other side: for the node that leads.")
@json_option
@pass_session
def verify(
    session: Session,
    storage: str,
    mode: str | None,
    granularity: int | None,
    rate: float | None,
    latency: float,
    resumed: bool,
    serve: bool,
) -> None:
    """Compare the copies of STORAGE on both nodes while guests go on; nothing is written to the mirror.

    Both nodes read their own disks past all caches at the same time and compare digests; the other node is asked by ssh as root, as
    Proxmox's nodes trust each other. What differs at first is looked at again until it is certain. Ctrl-C keeps what is known.

    Ends with 0 where all is equal, 1 where something differs for certain, 2 where it could not be compared, or not all of it.

    Example: pvedrbdstor verify ha
    """
    if serve:
        sys.exit(_serve(session, storage))
    if resumed and (mode is not None or granularity is not None):
        raise click.UsageError("--resume goes on with the mode and granularity of before")
    try:
        config = session.storage(storage).config
        status = _compare(session, config, mode or "full", granularity or 65536, rate, latency, resumed)
    except OSError as error:
        _fail(_failed(error), session)
    except Error as error:
        _fail(error, session)
    raise click.exceptions.Exit(status)


def _compare(
    session: Session,
    config: StorageConfig,
    mode: str,
    granularity: int,
    rate: float | None,
    latency: float,
    resumed: bool,
) -> int:
    """The exit status. Raises Error, OSError."""
    from pvedrbdstor.verify import job, report
    from pvedrbdstor.verify.pace import Pace
    from pvedrbdstor.verify.plan import Mode

    pace = Pace(rate * (1 << 20) if rate is not None else None, latency or None)
    asked = job.Asked(Mode(mode), granularity, pace=pace, resume=resumed)
    with Interrupt(_STOPPING) as interrupt, Progress("Comparing", rate=True) as progress:
        outcome, interrupted = job.run(config, asked, job.Watcher(progress, output.say, interrupt.gone))
    session.answer(report.as_json(outcome), report.text(outcome))
    return EXIT_STATUS if interrupted else outcome.exit_status


def _serve(session: Session, storage: str) -> int:
    """Frames go over standard input and output, which nothing else may use."""
    from pvedrbdstor.verify import peer
    from pvedrbdstor.verify.copy import LocalCopy

    read_fd, write_fd = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    return peer.serve(read_fd, write_fd, lambda: LocalCopy(session.storage(storage).config))


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
