"""`pvedrbdstor fencing`: who decides which node goes on when the mirror breaks, whether it can, and when it does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from pvedrbdstor import __version__
from pvedrbdstor.cli import output
from pvedrbdstor.cli.options import StorageName, json_option, storage_argument
from pvedrbdstor.cli.output import Column
from pvedrbdstor.cli.session import Session, pass_session
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd.config import FENCED
from pvedrbdstor.fencing import status as guard_status
from pvedrbdstor.fencing.arbiter import Flag, Problem, misnamed, pending, problems
from pvedrbdstor.fencing.configured import HANDLER, inputs_of, unknown
from pvedrbdstor.fencing.constants import LOOKBACK_SECONDS
from pvedrbdstor.fencing.timeline import Race, Timeline
from pvedrbdstor.fencing.timeline import timeline as timeline_of
from pvedrbdstor.fencing.times import Inputs

if TYPE_CHECKING:
    from pvedrbdstor.mirror.gather import Settings

_UNKNOWN = "?"


@click.group()
def fencing() -> None:
    """Say who decides which node goes on when the mirror breaks, and whether it can.

    Corosync's quorum is the judge: the vote of a third node or of a QDevice. The guard on each node follows it, and DRBD's
    handler asks the guard.
    """


@fencing.command(short_help="Run the guard in the foreground, as its unit does.")
@click.option("--log", type=click.Path(), help="Write each line of its log to this file, too.")
def guard(log: str | None) -> None:
    """Follow corosync and DRBD, answer DRBD's fence-peer handlers, and reset this node when it must go. Until SIGTERM.

    The unit pvedrbdstor-fence runs it: this is of use in tests. All of it is locked in memory.
    """
    argv = [sys.executable, "-m", "pvedrbdstor.fencing", *(["--log", log] if log else [])]
    os.execv(sys.executable, argv)  # noqa: S606 - without the command line's modules


@fencing.command(short_help="Show what happens when after a cut link, and whether it comes in time.")
@storage_argument
@json_option
@pass_session
def timeline(session: Session, storage: str) -> None:
    """Show what happens when after the link between the nodes of STORAGE is cut, and whether each comes in time.

    It is computed from the configured times: of DRBD, corosync, the QDevice, OCFS2 and Proxmox HA; nothing is cut. Ends with status
    0 when all fits, with 1 when something does not or is not known.

    Example: pvedrbdstor fencing timeline ha
    """
    config = session.storage(storage).config
    settings = _settings()
    inputs = _inputs(settings, config)
    line = timeline_of(inputs)
    document = _timeline_json(config, settings, inputs, line)
    session.answer(document, "\n".join(_timeline_text(config, settings, inputs, line)) + "\n")
    if not line.fits:
        raise click.exceptions.Exit(1)


@fencing.command(short_help="Say whether the guard runs and corosync's quorum can decide.")
@click.argument("storage", type=StorageName(), required=False)
@json_option
@pass_session
def status(session: Session, storage: str | None) -> None:
    """Say whether the guard runs on this node and whether corosync's quorum can decide; with STORAGE, whether that one uses them.

    Ends with status 0 when a link that is cut now is decided, with 1 when it is not, or this node could not be the one to go on.

    Example: pvedrbdstor fencing status ha
    """
    config = session.storage(storage).config if storage is not None else None
    settings = _settings()
    found = _problems(settings)
    against = [] if config is None else list(_against(settings, config))
    works = settings.guard is not None and not found and settings.guard.handicap is None and not against
    document = {
        "works": works,
        "guard": _guard_json(settings),
        "problems": [asdict(problem) for problem in found],
        "pending": None if (waits := _pending(settings)) is None else asdict(waits),
        "storage": None if config is None else {"id": config.id, "against": [cause for cause, _ in against]},
    }
    lines = [*_guard_text(settings), *_problem_text(found, settings.guard is not None), *_pending_text(settings)]
    for cause, remedy in against:
        lines += [f"{storage}: {cause}.", f"  {remedy}."]
    if config is not None and not against:
        lines.append(f"{storage}: its fencing asks the guard, and all times fit.")
    session.answer(document, "\n".join(lines) + "\n")
    if not works:
        raise click.exceptions.Exit(1)


def _settings() -> Settings:
    from pvedrbdstor.mirror import gather

    return gather.settings_of(gather.ask_settings())


def _inputs(settings: Settings, config: StorageConfig) -> Inputs:
    in_force = (settings.resources or {}).get(config.resource)
    timing = settings.guard.timing if settings.guard is not None else None
    return inputs_of(in_force, settings.corosync, settings.timeouts, timing)


def _pending(settings: Settings) -> Problem | None:
    """It decides nothing now: what is in force is what the times are computed from."""
    return pending(settings.corosync, settings.guard.timing if settings.guard is not None else None)


# --- timeline ------------------------------------------------------------------------------------------------------


def _timeline_text(config: StorageConfig, settings: Settings, inputs: Inputs, line: Timeline) -> Iterator[str]:
    yield f"What happens after the link of '{config.id}' (DRBD resource {config.resource}) is cut:"
    yield ""
    columns = [Column("from", True), Column("to", True), Column("seconds after the cut"), Column("because")]
    rows = [(_time(event.span.earliest), _time(event.span.latest), event.name, event.why) for event in line.events]
    yield output.table(columns, rows)
    yield "What must come before what:"
    yield ""
    columns = [Column("fits"), Column("takes", True), Column("has", True), Column("race"), Column("what")]
    yield output.table(columns, [_race_row(race) for race in line.races])
    yield from _misfits(config, line)
    if missing := list(unknown(inputs)):
        yield f"Not known: {', '.join(missing)}."
        yield (
            f"  Is DRBD connected ('drbdsetup show {config.resource}'), the storage up ('pvedrbdstor mirror status {config.id}'), "
            "and is there an /etc/corosync/corosync.conf?"
        )
    yield from _pending_text(settings)
    if not settings.own_handler(config.resource):
        yield f"DRBD's fence-peer handler is not {HANDLER}: this is what would happen if it were."
    if line.fits:
        yield "All times fit."


def _misfits(config: StorageConfig, line: Timeline) -> Iterator[str]:
    """What happens, and what to set; several races are often mended by one setting, which is told once."""
    told: set[str] = set()
    for race in line.races:
        if race.fits is not False:
            continue
        yield f"{race.code}: {race.misfit}."
        remedy = race.remedy(config.id, config.resource)
        yield "  The same setting mends it." if remedy in told else f"  {remedy}."
        told.add(remedy)


def _race_row(race: Race) -> tuple[str, ...]:
    fits = {True: "yes", False: "NO", None: _UNKNOWN}[race.fits]
    return fits, _time(race.first), _time(race.last), race.code, race.name


def _time(seconds: float | None) -> str:
    return _UNKNOWN if seconds is None else f"{seconds:.1f}"


def _timeline_json(config: StorageConfig, settings: Settings, inputs: Inputs, line: Timeline) -> dict[str, object]:
    return {
        "storage": config.id,
        "fits": line.fits,
        "own_handler": settings.own_handler(config.resource),
        "pending": None if (waits := _pending(settings)) is None else asdict(waits),
        "inputs": asdict(inputs),
        "unknown": list(unknown(inputs)),
        "events": [
            {"name": event.name, "earliest": event.span.earliest, "latest": event.span.latest, "why": event.why}
            for event in line.events
        ],
        "races": [
            {
                "code": race.code,
                "name": race.name,
                "fits": race.fits,
                "first": race.first,
                "first_is": race.first_is,
                "last": race.last,
                "last_is": race.last_is,
                "otherwise": race.otherwise,
                "remedy": race.remedy(config.id, config.resource),
            }
            for race in line.races
        ],
    }


# --- status --------------------------------------------------------------------------------------------------------


def _problems(settings: Settings) -> tuple[Problem, ...]:
    """Without a guard nobody has asked corosync for its votes."""
    votes = settings.guard.votes if settings.guard is not None else None
    found = problems(settings.corosync, votes)
    return tuple(problem for problem in found if settings.guard is not None or problem.code != "no-corosync")


def _against(settings: Settings, config: StorageConfig) -> Iterator[tuple[str, str]]:
    """Why a cut link of this storage is not decided by the guard, and what helps."""
    resource = config.resource
    in_force = (settings.resources or {}).get(resource)
    if not settings.own_handler(resource):
        remedy = f"""Write 'fence-peer "{HANDLER}";' in handlers {{ }} of the resource in drbd.conf and run 'drbdadm adjust {resource}'"""
        yield f"DRBD's fence-peer handler is not {HANDLER}", remedy
    if in_force is None:
        yield "DRBD does not tell its settings", f"Is it up? Look at 'drbdsetup show {resource}'"
    elif in_force.fencing(config.volume) != FENCED:
        remedy = f"Set 'fencing {FENCED}' in drbd.conf and run 'drbdadm adjust {resource}'"
        yield f"DRBD does not fence: its policy is '{in_force.fencing(config.volume) or 'not known'}'", remedy
    votes = settings.guard.votes if settings.guard is not None else None
    if votes is not None:
        for problem in misnamed(settings.corosync, votes.node_id, settings.other_hosts(resource)):
            yield problem.cause, problem.remedy
    unfit = [race.code for race in timeline_of(_inputs(settings, config)).races if race.fits is not True]
    if unfit:
        yield (
            f"Times do not fit, or are not known ({', '.join(unfit)})",
            f"Run 'pvedrbdstor fencing timeline {config.id}'",
        )


def _guard_text(settings: Settings) -> Iterator[str]:
    guard = settings.guard
    if guard is None:
        yield "The guard does not run: after a cut link both nodes freeze and reset themselves."
        yield f"  Run '{guard_status.START}'."
        return
    yield f"The guard runs (process {guard.pid}, heard {guard.age:.0f} s ago)."
    if guard.quorum is not None:
        word = "quorate" if guard.quorum.quorate else "NOT quorate"
        members = ", ".join(str(member) for member in sorted(guard.quorum.members))
        yield f"Corosync is {word}: nodes {members} are members of ring {guard.quorum.ring}."
    votes = guard.votes
    if votes is not None:
        device = (
            f"; the QDevice {_qdevice(votes.flags)}" if settings.corosync and settings.corosync.quorum.device else ""
        )
        yield f"{votes.total} of {votes.expected} votes are present, {votes.quorum} are a majority{device}."
    yield from _now_text(guard)


def _qdevice(flags: Flag) -> str:
    if Flag.QDEVICE_ALIVE not in flags:
        return "is silent"
    return "votes" if Flag.QDEVICE_CAST_VOTE in flags else "casts no vote"


def _now_text(guard: guard_status.Status) -> Iterator[str]:
    """What holds for the moment alone."""
    for outage in guard.outages:
        state = "this node goes on alone" if outage.won else f"undecided: {outage.said or 'nothing was asked yet'}"
        yield f"The other node of /dev/drbd{outage.minor} is lost, for {outage.seconds:.0f} s now; {state}."
    if guard.handicap is not None and not guard.outages:
        yield f"Were the other node lost now, this one could not go on: {guard.handicap}."
        yield f"  What has passed is forgiven after {LOOKBACK_SECONDS:.0f} s."
    if guard.version not in (None, __version__):
        yield f"The guard is that of version {guard.version}, as no upgrade restarts it; {__version__} is installed."
        yield "  While DRBD is connected: 'systemctl restart pvedrbdstor-fence', on one node after the other, a minute apart."


def _problem_text(found: tuple[Problem, ...], heard: bool) -> Iterator[str]:
    for problem in found:
        yield f"{'Quorum cannot decide' if problem.fatal else 'Warning'}: {problem.cause}."
        yield f"  {problem.remedy}."
    if not found and heard:
        yield "Quorum can decide which node goes on."
    elif not found:
        yield "corosync.conf lets quorum decide which node goes on; whether corosync does, only the guard would know."


def _pending_text(settings: Settings) -> Iterator[str]:
    problem = _pending(settings)
    if problem is not None:
        yield f"Note: {problem.cause}."
        yield f"  {problem.remedy}."


def _guard_json(settings: Settings) -> dict[str, object] | None:
    guard = settings.guard
    if guard is None:
        return None
    quorum, votes = guard.quorum, guard.votes
    ring = None if quorum is None else {**asdict(quorum), "members": sorted(quorum.members)}
    return {
        "pid": guard.pid,
        "version": guard.version,
        "age": guard.age,
        "quorum": ring,
        "votes": None if votes is None else asdict(votes),
        "timing": None if guard.timing is None else asdict(guard.timing),
        "handicap": guard.handicap,
        "outages": [asdict(outage) for outage in guard.outages],
    }
