"""The command `split-brain resolve`: what was asked for, the plan in words, the word of the administrator, the work."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import click

from pvedrbdstor import command
from pvedrbdstor.cli import options, output
from pvedrbdstor.cli.progress import Progress
from pvedrbdstor.cli.session import Session
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import commands
from pvedrbdstor.errors import SplitRefused
from pvedrbdstor.fencing.split import begin, execute, journal
from pvedrbdstor.fencing.split.hands import NodeHands
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.steps import Step

_SECONDS = 30.0
TRIAL = "PVEDRBDSTOR_TRY_RESOLVE"
"""The environment variable with which 'resolve' works, for its tests and for trials on clusters whose data nobody needs."""
_NOT_RELEASED = "'split-brain resolve' is not released yet, as there are known ways in which it could discard what it has not preserved"
_BY_HAND = "docs/split-brain.md names them, and the steps by hand"


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of the command line."""

    keep: str | None = None
    discard_here: bool = False
    folder: str | None = None
    other_file: str | None = None
    start_over: bool = False
    yes: bool = False


def resolve(session: Session, storage: str, asked: Asked) -> None:
    """Raises SplitRefused, SplitStepFailed, BadRequest, OSError."""
    config = session.storage(storage).config
    own = socket.gethostname().partition(".")[0]
    if asked.keep is not None and asked.keep.partition(".")[0] == own and not asked.discard_here:
        _keep_this_one(session, config, own)
        return
    if not os.environ.get(TRIAL):
        raise SplitRefused(storage=storage, cause=_NOT_RELEASED, remedy=_BY_HAND)
    with _only_one(storage):
        current = journal.read(storage)
        if current is not None and asked.start_over:
            kept = journal.put_away(current)
            output.say(
                f"the record of the interrupted resolution is kept as {kept}; what it preserved stays at {current.target}."
            )
            current = None
        if current is None:
            current = _begin(session, config, asked)
        else:
            _check_the_same(current, asked)
            output.say(f"going on with the resolution that keeps {current.keep}'s copy (preserved: {current.target}).")
        _work(session, config, current)


def _begin(session: Session, config: StorageConfig, asked: Asked) -> Journal:
    if asked.keep is None and not asked.discard_here:
        raise click.UsageError("say whose copy is to be kept: --keep NODE, or --discard-here")
    begun = begin.begin(config, keep=asked.keep, folder=asked.folder, other_file=asked.other_file)
    click.echo(begin.text(begun, config), nl=False, err=session.as_json)
    if not asked.yes:
        _ask(begun.journal)
    journal.write(begun.journal)
    return begun.journal


def _ask(planned: Journal) -> None:
    """The name of the node to lose must be typed; where nobody can, --yes must have been said."""
    if not options.asks():
        output.say("nothing was done. Say --yes to carry this plan out.")
        raise click.exceptions.Exit(1)
    question = f"Type the name of the node whose copy is to be discarded ({planned.discard}) to go on"
    if click.prompt(question, err=True, default="", show_default=False).strip() != planned.discard:
        output.say("nothing was done.")
        raise click.exceptions.Exit(1)


def _check_the_same(current: Journal, asked: Asked) -> None:
    if asked.keep is not None and asked.keep != current.keep:
        raise SplitRefused(
            storage=current.storage,
            cause=f"a resolution that keeps {current.keep}'s copy was begun and has not ended",
            remedy="Go on with it by leaving --keep away, or give it up with --start-over",
        )


def _work(session: Session, config: StorageConfig, current: Journal) -> None:
    with Progress("Copying") as copying, Progress("Resync") as syncing:
        done, largest = 0, 0

        def copied(count: int) -> None:
            nonlocal done
            done += count
            copying(done, max(done, 1))

        def left(kib: int) -> None:
            nonlocal largest
            largest = max(largest, kib)
            syncing(largest - kib, max(largest, 1))

        def report(step: Step) -> None:
            output.say(f"{config.id}: {step.value} ...")

        hands = NodeHands(config, output.say, copied, left)
        ended = execute.resolve(current, hands, report)
    kept = journal.put_away(ended)
    text = (
        f"{config.id}: both nodes have {ended.keep}'s copy again. What {ended.discard} had is preserved: {ended.target} "
        f"({ended.preserve.value}). The record of this resolution: {kept}\n"
    )
    document = {
        "storage": config.id,
        "kept": ended.keep,
        "discarded": ended.discard,
        "preserved": {"how": ended.preserve.value, "target": ended.target},
        "compared_bytes": sum(length for _, length in ended.ranges),
        "record": kept,
    }
    session.answer(document, text)


def _keep_this_one(session: Session, config: StorageConfig, own: str) -> None:
    """The part of the node to keep: let DRBD connect. Without the other side's part that discards nothing."""
    cause = begin.not_to_connect(config)
    if cause is not None:
        raise SplitRefused(storage=config.id, cause=cause.cause, remedy=cause.remedy)
    state = begin.connection(config)
    if state == "StandAlone":
        command.run(commands.connect(config.resource), timeout=_SECONDS)
    other = begin.other_name(config) or "the other node"
    text = {
        "Connected": f"{config.id}: the nodes are connected.\n",
        None: f"{config.id}: DRBD is down on this node. Bring it up: 'pvedrbdstor mirror up {config.id}'.\n",
    }.get(
        state,
        f"{config.id}: {own} keeps its copy and waits for {other}. Run there, unless it runs already: 'pvedrbdstor split-brain "
        f"resolve {config.id} --keep {own}'.\n",
    )
    session.answer({"storage": config.id, "kept": own, "connection": state}, text)


@contextmanager
def _only_one(storage: str) -> Iterator[None]:
    """One resolution of a storage at a time on this node."""
    os.makedirs(journal.FOLDER, mode=0o700, exist_ok=True)
    fd = os.open(f"{journal.FOLDER}/{storage}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        remedy = "Wait for it"
        raise SplitRefused(storage=storage, cause="another 'split-brain resolve' works on it", remedy=remedy) from error
    finally:
        os.close(fd)
