"""The command `split-brain resolve`: what was asked for, the plan in words, the word of the administrator, the work."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import click

from pvedrbdstor import command, files
from pvedrbdstor.cli import options, output
from pvedrbdstor.cli.progress import Progress
from pvedrbdstor.cli.session import Session
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import commands
from pvedrbdstor.errors import Error, SplitJournalBroken, SplitRefused
from pvedrbdstor.fencing.split import abandon, begin, execute, investigate, journal, plan, preserve, snapshot
from pvedrbdstor.fencing.split.hands import NodeHands, lower_device
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.steps import Preserve, Step
from pvedrbdstor.mirror.bringup import down, join, paths
from pvedrbdstor.mirror.bringup.facts import Options

_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of the command line."""

    keep: str | None = None
    discard_here: bool = False
    folder: str | None = None
    other_file: str | None = None
    start_over: bool = False
    abandon: bool = False
    yes: bool = False


def resolve(session: Session, storage: str, asked: Asked) -> None:
    """Raises SplitRefused, SplitStepFailed, BadRequest, OSError."""
    config = session.storage(storage).config
    own = socket.gethostname().partition(".")[0]
    if (wrong := contradiction(asked, own)) is not None:
        raise click.UsageError(wrong)
    if _keeps(asked, own):
        _keep_this_one(session, config, own)
        return
    with _only_one(storage):
        if asked.abandon:
            kept, left = abandon.abandon(config)
            text = f"{storage}: the resolution is given up; its record: {kept}. {left}\n"
            session.answer({"storage": storage, "given_up": True, "record": kept, "remarks": left}, text)
            return
        current = None if asked.start_over else journal.read(storage)
        if current is None:
            current = _begin(session, config, asked)
        else:
            _go_on(config, current, asked)
        _work(session, config, current)


def contradiction(asked: Asked, own: str) -> str | None:
    """What cannot be meant, in words. A command line that is typed on the wrong node must not do the opposite of what it says."""
    others = {
        "--discard-here": asked.discard_here,
        "--preserve-to": asked.folder is not None,
        "--other": asked.other_file is not None,
        "--start-over": asked.start_over,
        "--abandon": asked.abandon,
    }
    given = [option for option, is_given in others.items() if is_given]
    if _keeps(asked, own) and given:
        return (
            f"{own}, where this is typed, is the node to keep, and {' and '.join(given)} would be of the other node's copy. Run it there, "
            f"or leave {'it' if len(given) == 1 else 'them'} away"
        )
    if asked.abandon and (asked.keep is not None or len(given) > 1):
        return "--abandon gives up what was begun here, and goes with no other option"
    return None


def _keeps(asked: Asked, own: str) -> bool:
    return asked.keep is not None and asked.keep.partition(".")[0] == own


def _begin(session: Session, config: StorageConfig, asked: Asked) -> Journal:
    """What was begun before is given up only once the new plan is agreed to."""
    before = _before(config.id) if asked.start_over else None
    if before is not None:
        folder = os.path.dirname(before.target) if before.preserve is not Preserve.SNAPSHOT else None
        asked = replace(asked, keep=asked.keep or before.keep, folder=asked.folder or folder)
    if asked.keep is None and not asked.discard_here:
        raise click.UsageError("say whose copy is to be kept: --keep NODE, or --discard-here")
    begun = begin.begin(config, keep=asked.keep, folder=asked.folder, other_file=asked.other_file)
    click.echo(begin.text(begun, config), nl=False, err=session.as_json)
    if not asked.yes:
        _ask(begun.journal)
    if os.path.exists(paths.resolution(config.id)):
        kept, left = abandon.abandon(config)
        output.say(f"the interrupted resolution is given up; its record: {kept}. {left}")
    journal.write(begun.journal)
    return begun.journal


def _before(storage: str) -> Journal | None:
    try:
        return journal.read(storage)
    except SplitJournalBroken:
        return None


def _ask(planned: Journal) -> None:
    """The name of the node to lose must be typed; where nobody can, --yes must have been said."""
    if not options.asks():
        output.say("nothing was done. Say --yes to carry this plan out.")
        raise click.exceptions.Exit(1)
    question = f"Type the name of the node whose copy is to be discarded ({planned.discard}) to go on"
    if click.prompt(question, err=True, default="", show_default=False).strip() != planned.discard:
        output.say("nothing was done.")
        raise click.exceptions.Exit(1)


def _go_on(config: StorageConfig, current: Journal, asked: Asked) -> None:
    """With what was decided before a crash, by the same decision: other options are not passed over in silence."""
    _check_the_same(current, asked)
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(current.began))
    state = f"preserved: {current.target}" if current.preserved else "nothing is preserved yet"
    output.say(f"going on with the resolution of {began} that keeps {current.keep}'s copy ({state}).")
    if plan.takes_all(current, NodeHands(config).look(current)):
        output.say(
            f"{config.path} is not mounted any more, so its files cannot be copied: all of DRBD's data are copied to {current.target} instead."
        )
    if not current.told and not asked.yes:
        _ask(current)


def _check_the_same(current: Journal, asked: Asked) -> None:
    folder = os.path.dirname(current.target) if current.preserve is not Preserve.SNAPSHOT else None
    wanted = os.path.abspath(asked.folder) if asked.folder is not None else folder
    cause = None
    if asked.keep is not None and asked.keep != current.keep:
        cause = f"a resolution that keeps {current.keep}'s copy was begun and has not ended"
    elif wanted != folder:
        cause = f"a resolution that preserves to {current.target} was begun and has not ended"
    elif asked.other_file is not None:
        cause = "the other node's word was taken when this resolution was begun"
    if cause is not None:
        remedy = "Go on with it by leaving that option away, or give it up first with --abandon"
        raise SplitRefused(storage=current.storage, cause=cause, remedy=remedy)


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
    there = preserve.is_there(ended)
    kept = journal.put_away(ended)
    down.release(config.id)
    preserved = (
        f"is preserved: {ended.target} ({ended.preserve.value})"
        if there
        else f"was preserved, but is NOT WHOLE any more: {ended.target}"
    )
    outlook = _outlook(config, ended) if there and ended.preserve is Preserve.SNAPSHOT else ""
    text = (
        f"{config.id}: both nodes have {ended.keep}'s copy again. What {ended.discard} had {preserved}.{outlook} The record of this "
        f"resolution: {kept}\n"
    )
    if ended.given_up:
        text += f"Earlier tries may have left this, which can be removed: {', '.join(ended.given_up)}\n"
    document = {
        "storage": config.id,
        "kept": ended.keep,
        "discarded": ended.discard,
        "preserved": {
            "how": ended.preserve.value,
            "target": ended.target,
            "whole": there,
            "given_up": list(ended.given_up),
            "outlook": outlook.strip(),
        },
        "compared_bytes": ended.compared,
        "record": kept,
    }
    session.answer(document, text)
    _bring_up(config)


def _outlook(config: StorageConfig, ended: Journal) -> str:
    """Nothing where it cannot be told: all was done by now, and that must be said."""
    try:
        return f" {snapshot.outlook(ended, preserve.device_size(lower_device(config)))}"
    except (Error, OSError):
        return ""


def _bring_up(config: StorageConfig) -> None:
    """An ordinary one: one copy is what there is by now, whatever comes of it. Raises BringUpRefused, BringUpFailed."""
    output.say(f"{config.id}: bringing the storage up again ...")
    join.join(config, Options(by_hand=True), lambda _: None).raise_error()


def _keep_this_one(session: Session, config: StorageConfig, own: str) -> None:
    """The part of the node to keep: let DRBD connect. Without the other side's part that discards nothing."""
    running = journal.read(config.id)
    if running is not None:
        cause, remedy = investigate.decided_otherwise(config.id, own, running.keep)
        raise SplitRefused(storage=config.id, cause=cause, remedy=remedy)
    against = investigate.not_to_connect(config)
    if against is not None:
        raise SplitRefused(storage=config.id, cause=against.cause, remedy=against.remedy)
    state = begin.connection(config)
    if state is None:
        remedy = f"Bring it up: 'pvedrbdstor mirror up {config.id}'"
        raise SplitRefused(storage=config.id, cause=f"DRBD is down on {own}, the node to keep", remedy=remedy)
    if state == "StandAlone":
        command.run(commands.connect(config.resource), timeout=_SECONDS)
        state = begin.connection(config)
    other = begin.other_name(config) or "the other node"
    waiting = (
        f"{own} keeps its copy and waits for {other}. Run there, unless it runs already: "
        f"'pvedrbdstor split-brain resolve {config.id} --keep {own}'."
    )
    text = f"{config.id}: {'the nodes are connected.' if state == 'Connected' else waiting}\n"
    session.answer({"storage": config.id, "kept": own, "connection": state}, text)


@contextmanager
def _only_one(storage: str) -> Iterator[None]:
    """One resolution of a storage at a time on this node. Raises SplitRefused, OSError."""
    with ExitStack() as held:
        try:
            held.enter_context(files.only_one(f"{paths.RESOLUTIONS}/{storage}.lock"))
        except files.Held as error:
            cause = f"another 'split-brain resolve' works on it, or waits for an answer (process {error.pid})"
            remedy = f"Look for its terminal: 'ps -f -p {error.pid}'"
            raise SplitRefused(storage=storage, cause=cause, remedy=remedy) from error
        yield
