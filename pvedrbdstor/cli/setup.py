"""`pvedrbdstor setup`: from two nodes with a disk each to a storage: what there is, what would be done, doing it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from pvedrbdstor.cli import output
from pvedrbdstor.cli.options import asks, confirm, json_option, yes_option
from pvedrbdstor.cli.session import Session, pass_session
from pvedrbdstor.errors import SetupRefused
from pvedrbdstor.setup.answers import WIPE, WITHOUT_FENCING, WITHOUT_THIRD_VOTE, Answers

if TYPE_CHECKING:
    from pvedrbdstor.setup.journal import Journal
    from pvedrbdstor.setup.plan import Plan
    from pvedrbdstor.setup.steps import Refusal

_PLACE = "NODE:DEVICE"


@click.group()
def setup() -> None:
    """Set a storage up on two nodes of a Proxmox cluster that have nothing but a disk for it.

    `plan` looks at both nodes and shows everything that would be written and run, where, and why; it changes nothing. `apply` does it, one
    step after the other, and goes on where it was interrupted; `undo` says what would take it back. docs/setup.md has an example.
    """


@setup.command(short_help="Show what this node has that a setup is planned from.")
@json_option
@pass_session
def facts(session: Session) -> None:
    """Show what this node has that a setup is planned from: disks and who uses them, networks, kernel, versions. It only reads.

    Example: pvedrbdstor setup facts
    """
    from pvedrbdstor.cli import setup_text
    from pvedrbdstor.setup import facts as facts_of
    from pvedrbdstor.setup import look

    found = look.look()
    session.answer(facts_of.as_json(found), setup_text.facts(found))


@setup.command(short_help="Show what would be done, and keep it for apply.")
@click.argument("storage", required=False)
@click.option(
    "--disk", "disks", metavar=_PLACE, multiple=True, help="The disk, or logical volume, of a node; give it for both."
)
@click.option("--network", metavar="NETWORK", help="The network that replicates, such as 10.10.10.0/24.")
@click.option("--resource", metavar="NAME", help="DRBD's name for it; the first free of r0, r1 ...")
@click.option(
    "--cluster", metavar="NAME", default="pve", show_default=True, help="The o2cb cluster, where there is none yet."
)
@click.option(
    "--lvm/--no-lvm", default=True, help="Put a logical volume on a disk (the default), or use the disk itself."
)
@click.option("--group", metavar="NAME", default="mirror", show_default=True, help="The volume group to make.")
@click.option("--content", default="images,rootdir", show_default=True, help="What the storage may hold.")
@click.option(WIPE, "wipe", metavar=_PLACE, multiple=True, help="Destroy what is on this device.")
@click.option(WITHOUT_THIRD_VOTE, "without_third_vote", is_flag=True, help="Nobody can decide: both nodes reset.")
@click.option(
    WITHOUT_FENCING, "without_fencing", is_flag=True, help="Both nodes go on writing, and one side's writes are lost."
)
@click.option(
    "--measure/--no-measure",
    default=True,
    help="Fill the link for three seconds to see what it carries (the default), or go by what its driver tells.",
)
@click.option("--anew", is_flag=True, help="Put an earlier plan that was begun away.")
@json_option
@pass_session
def plan(session: Session, storage: str | None, anew: bool, measure: bool, **options: object) -> None:
    """Look at both nodes and show everything that would be written and run to make STORAGE, on which node, and why.

    Nothing is changed; what is shown is kept for `setup apply`. What is missing on the command line is asked for on a terminal. Ends
    with 1 when something is in the way, of which all is named.

    Example: pvedrbdstor setup plan ha --disk pve1:/dev/sdb --disk pve2:/dev/sdb --network 10.10.10.0/24
    """
    from pvedrbdstor.cli import setup_ask, setup_text
    from pvedrbdstor.setup import exact, values
    from pvedrbdstor.setup import journal as journals
    from pvedrbdstor.setup import plan as plans
    from pvedrbdstor.setup.remote import Both

    storage = storage or setup_ask.storage()
    _refuse_begun(storage, anew)
    both = Both(session.node, storage)
    disks, wipe = _places(options["disks"]), _places(options["wipe"])
    nodes, disks = setup_ask.nodes(both, disks)
    network = setup_ask.network(nodes, options["network"])
    answers = Answers(
        storage=storage,
        disks=disks,
        uuid=uuid.uuid4().hex.upper(),
        network=network,
        resource=_text(options["resource"]),
        cluster=str(options["cluster"]),
        lvm=bool(options["lvm"]),
        group=str(options["group"]),
        content=str(options["content"]),
        wipe=wipe,
        without_fencing=bool(options["without_fencing"]),
        without_third_vote=bool(options["without_third_vote"]),
    )
    made = plans.make(nodes, answers, session.node)
    if measure and isinstance(made, plans.Plan):
        if not session.as_json:
            output.say(f"measuring the link {made.link.network}, for some three seconds.")
        made = plans.make(nodes, answers, session.node, both.measure(made))
    if isinstance(made, tuple):
        _tell_refusals(session, storage, made)
        raise click.exceptions.Exit(1)
    records = {node: both.record(node, path) for node, path in exact.wiping(made).items()}
    made = exact.sealed(made, records, int(time.time()))
    with setup_text.only_one(storage):
        _refuse_begun(storage, anew)  # since it was looked at first, an apply may have begun one
        if anew or journals.read(storage) is not None:  # of one that has ended
            for kept in journals.put_away(storage):
                output.say(f"the earlier one is in {kept} now.")
        path = journals.write_plan(made)
    session.answer({**values.encode(made), "kept": path}, setup_text.plan(made, nodes, path))


@setup.command(name="apply", short_help="Do what the plan says.")
@click.argument("storage")
@yes_option
@json_option
@pass_session
def apply_plan(session: Session, storage: str, yes: bool) -> None:
    """Do what `setup plan` has shown last for STORAGE, one step after the other, on this node and by ssh on the other.

    It begins by looking whether both nodes are still what they were. It stops at the first step that fails and says what is there now.
    Run again, it goes on from there, also after it was killed.

    Example: pvedrbdstor setup apply ha
    """
    from pvedrbdstor.cli import setup_text
    from pvedrbdstor.setup import apply as applying
    from pvedrbdstor.setup import journal as journals
    from pvedrbdstor.setup.remote import Both

    found = journals.read_plan(storage)
    if found is None:
        raise _no_plan(storage)
    if found.lead != session.node:
        raise SetupRefused(
            storage=storage, cause=f"its plan was made on {found.lead}", remedy=f"Run this on {found.lead}"
        )
    with setup_text.only_one(storage), setup_text.Steps(found, quiet=session.as_json) as steps:
        journal = _journal(found)
        if not session.as_json:
            click.echo(setup_text.summary(found, journal), err=True, nl=False)
        _confirm(found, setup_text.question(found, journal), yes)
        try:
            journal = applying.apply(found, journal, Both(session.node, storage), steps)
        except KeyboardInterrupt:
            output.say(f"interrupted. What was done stays; 'pvedrbdstor setup apply {storage}' goes on from there.")
            raise
    document = {"storage": storage, "finished": journal.finished, "done": list(journal.done)}
    session.answer(document, setup_text.done(found, steps.said))


@setup.command(name="step", hidden=True)
@click.argument("request")
def step(request: str) -> None:
    """Take one step on this node, for `setup apply` on the other."""
    from pvedrbdstor.errors import BadRequest
    from pvedrbdstor.setup import hands, values
    from pvedrbdstor.setup.remote import step_of

    try:
        found, again = step_of(request)
    except values.Malformed as error:
        raise BadRequest(detail=f"no step of this version of pvedrbdstor: {error}") from error
    click.echo(json.dumps(values.encode(hands.carry_out(found, again))))


@setup.command(name="signatures", hidden=True)
@click.argument("device")
def signatures(device: str) -> None:
    """Print exactly what is on a device of this node, for `setup` on the other."""
    from pvedrbdstor.errors import BadRequest
    from pvedrbdstor.setup import exact
    from pvedrbdstor.setup.steps import NotNow

    try:
        click.echo(exact.record(device))
    except NotNow as refusal:
        raise BadRequest(detail=str(refusal).rstrip(".")) from refusal


@setup.command(name="listen", hidden=True)
def listen() -> None:
    """Listen on DRBD's port for `setup plan` on the other node, which measures the link. What to do is a line on standard input; it
    ends when that does."""
    from pvedrbdstor.errors import BadRequest
    from pvedrbdstor.setup import listen as listening
    from pvedrbdstor.setup import values

    try:
        listening.listen(listening.request(0), 0, lambda: click.echo(json.dumps({"ready": True})))
    except (values.Malformed, TimeoutError) as error:
        raise BadRequest(detail=f"nothing to listen for: {error}") from error
    except OSError as error:
        click.echo(json.dumps({"errno": error.errno}))


@setup.command(short_help="Show what would take a setup back, and do nothing.")
@click.argument("storage")
@json_option
@pass_session
def undo(session: Session, storage: str) -> None:
    """Show, of what `setup apply` has done for STORAGE, the commands that take it back, on which node, and what has to stay. It runs
    none of them.

    Example: pvedrbdstor setup undo ha
    """
    from pvedrbdstor.cli import setup_text
    from pvedrbdstor.setup import journal as journals
    from pvedrbdstor.setup import undo as undoing

    found = journals.read_plan(storage)
    if found is None:
        raise _no_plan(storage)
    journal = _journal(found)
    acts, warning = undoing.acts(found, journal), undoing.warning(found, journal)
    document = [{"node": act.node, "command": list(act.words), "why": act.why} for act in acts]
    session.answer({"storage": storage, "warning": warning, "undo": document}, setup_text.undo(found, acts, warning))


def _no_plan(storage: str) -> SetupRefused:
    return SetupRefused(
        storage=storage,
        cause="there is no plan for it on this node",
        remedy=f"Run 'pvedrbdstor setup plan {storage}' first",
    )


def _confirm(found: Plan, question: str | None, yes: bool) -> None:
    """Ask where something will be destroyed. Where nobody can be asked, only --yes says so. Raises SetupRefused."""
    if question is None or yes:
        return
    if not asks():
        raise SetupRefused(
            storage=found.answers.storage,
            cause="it would destroy what is on a device, and there is nobody to ask",
            remedy="Say '--yes' if the plan is right",
        )
    confirm(question, yes)


def _journal(found: Plan) -> Journal:
    """What was done of this very plan. Raises SetupRefused for the journal of another one, SetupFileBroken."""
    from pvedrbdstor.setup import journal as journals

    storage = found.answers.storage
    fresh, journal = journals.of(found), journals.read(storage)
    if journal is None:
        return fresh
    if journal.plan != fresh.plan:
        cause, remedy = (
            "what was done belongs to another plan",
            f"Make a new one: 'pvedrbdstor setup plan {storage} --anew'",
        )
        raise SetupRefused(storage=storage, cause=cause, remedy=remedy)
    return journal


def _refuse_begun(storage: str, anew: bool) -> None:
    """A plan that was begun is gone on with: a new one would find the disks in use by it."""
    from pvedrbdstor.setup import journal as journals

    if anew:
        return
    journal = journals.read(storage)
    if journal is not None and journal.begun and not journal.finished:
        raise SetupRefused(
            storage=storage,
            cause="an earlier plan was begun and has not come to its end",
            remedy=f"Go on with 'pvedrbdstor setup apply {storage}'; or take back what 'pvedrbdstor setup undo {storage}' shows, and put "
            "that plan away with '--anew'",
        )


def _places(given: object) -> dict[str, str]:
    """NODE:DEVICE, each node once. Raises UsageError."""
    assert isinstance(given, Iterable)
    found: dict[str, str] = {}
    for text in given:
        node, colon, device = str(text).partition(":")
        if not colon or not node or not device.startswith("/dev/"):
            raise click.UsageError(f"'{text}' is not {_PLACE}, such as pve1:/dev/sdb")
        if node in found:
            raise click.UsageError(f"node {node} is named twice, in '{text}', too")
        found[node] = device
    return found


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _tell_refusals(session: Session, storage: str, refusals: tuple[Refusal, ...]) -> None:
    from pvedrbdstor.setup.steps import printable

    document = {"storage": storage, "refused": [{"cause": each.cause, "remedy": each.remedy} for each in refusals]}
    if session.as_json:
        output.print_json(document)
        return
    for each in refusals:
        output.say(f"{printable(each.cause)}.\n  {printable(each.remedy)}.")
    output.say("nothing was planned, and nothing was changed.")
