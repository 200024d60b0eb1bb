"""`pvedrbdstor split-brain`: what each side has changed, and the way back to one copy."""

from __future__ import annotations

import json
import os
import time

import click

from pvedrbdstor.cli import output, split_resolve
from pvedrbdstor.cli.options import json_option, storage_argument, yes_option
from pvedrbdstor.cli.session import Session, pass_session
from pvedrbdstor.errors import BadRequest, SystemCallFailed


@click.group("split-brain")
def split_brain() -> None:
    """Both nodes have changed copies of their own: say what each would lose, and make one copy of them again."""


@split_brain.command(short_help="Say what each side has changed since the copies parted.")
@storage_argument
@click.option("--local", is_flag=True, help="Only what this node knows, for the other one: see --other.")
@click.option(
    "--other",
    "other_file",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="What 'split-brain show STORAGE --local --json' printed on the other node, where it cannot be asked by ssh.",
)
@click.option("--quick", is_flag=True, hidden=True, help="With --local: without digests, which are asked for later.")
@click.option(
    "--digests", "digests", hidden=True, metavar="JSON", help="For the other node: digests of parts of files."
)
@json_option
@pass_session
def show(session: Session, storage: str, local: bool, other_file: str | None, quick: bool, digests: str | None) -> None:
    """Say since when the copies of STORAGE are apart, which files changed on which side, and what each side would lose.

    It only reads. The other node is asked by ssh as root, as Proxmox's nodes trust each other. After both nodes have died and
    one is alone, it says who was last and what forcing means.

    Example: pvedrbdstor split-brain show ha
    """
    from pvedrbdstor.fencing.split import investigate, journal, look, report, side

    config = session.storage(storage).config
    try:
        if digests is not None:
            output.print_json(investigate.digests_of(config, _request(digests)))
            return
        if local:
            mine = look.look(config, with_digests=not quick)
            session.answer(side.as_json(mine), _local_text(mine.node, mine.disk, len(mine.files)))
            return
        found = investigate.investigate(config, other_file)
        running = journal.read(storage)
    except OSError as error:
        raise failed(error) from error
    if running is not None:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(running.began))
        text = (
            f"A resolution that keeps {running.keep}'s copy was begun at {began} and has not ended; what is preserved is, or will "
            f"be, {running.target}. 'pvedrbdstor split-brain resolve {storage}' goes on with it."
        )
        found = investigate.in_progress(found, text)
    session.answer(report.document(found), report.text(found, config))


@split_brain.command(short_help="Keep one side's copy, preserve the other one, make them one.")
@storage_argument
@click.option("--keep", metavar="NODE", help="The node whose copy is to be kept.")
@click.option("--discard-here", is_flag=True, help="This node's copy is the one to lose.")
@click.option(
    "--preserve-to",
    "folder",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="Copy what will be lost to this folder on a local disk. Default: a snapshot of the lower device, which must be a "
    "logical volume.",
)
@click.option(
    "--other",
    "other_file",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="As with show, where the other node cannot be asked.",
)
@click.option("--start-over", is_flag=True, help="Give up an interrupted resolution and begin anew.")
@click.option("--abandon", is_flag=True, help="Give up an interrupted resolution: nothing more is discarded.")
@yes_option
@json_option
@pass_session
def resolve(
    session: Session,
    storage: str,
    keep: str | None,
    discard_here: bool,
    folder: str | None,
    other_file: str | None,
    start_over: bool,
    abandon: bool,
    yes: bool,
) -> None:
    """Make one copy of STORAGE again: run it on the node whose copy is to be lost.

    It prints a plan first. Refused while guests run here and for everything that is not a split brain. What this side has is
    preserved before anything of it is discarded, and until the end nothing of ours brings the storage up here. After a crash at
    any step the same command goes on where it was. On the node to keep it only lets DRBD connect, which the other one does by
    itself where it can reach it by ssh.

    Example: pvedrbdstor split-brain resolve ha --keep pve1 --preserve-to /var/tmp
    """
    try:
        split_resolve.resolve(
            session, storage, split_resolve.Asked(keep, discard_here, folder, other_file, start_over, abandon, yes)
        )
    except OSError as error:
        raise failed(error) from error


def failed(error: OSError) -> SystemCallFailed:
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "files of the storage"
    remedy = "Is this run as root? Look at 'dmesg'"
    return SystemCallFailed(operation="Working on", path=where, reason=error.strerror or str(error), remedy=remedy)


def _request(text: str) -> dict[str, tuple[tuple[int, int], ...]]:
    try:
        return {
            str(path): tuple((int(start), int(size)) for start, size in parts)
            for path, parts in json.loads(text).items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise BadRequest(detail=f"--digests wants JSON of parts of files ({error})") from error


def _local_text(node: str, disk: str | None, count: int) -> str:
    return f"{node}: DRBD's disk is {disk or 'down'}; {count} files. Add --json for what the other node's show --other reads.\n"
