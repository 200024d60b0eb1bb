"""`pvedrbdstor vendor-units ...`: hidden, for the package's scripts and units."""

from __future__ import annotations

import click

from pvedrbdstor.cli.options import json_option
from pvedrbdstor.cli.output import Column, table
from pvedrbdstor.cli.session import Session, pass_session
from pvedrbdstor.mirror.vendor import Vendor

_COLUMNS = (Column("Unit"), Column("State"))
root_option = click.option("--root", metavar="PATH", default="/", hidden=True, help="The system to work on.")


@click.group("vendor-units")
def vendor_units() -> None:
    """Keep the start scripts of drbd-utils and ocfs2-tools away from storages of ours.

    At shutdown they end the mirror, and what uses it, before the guests have stopped. So they are masked while
    storage.cfg has a storage of ours for this node, and given back when the last one goes.
    """


@vendor_units.command()
@root_option
@pass_session
def mask(session: Session, root: str) -> None:
    """Mask them, and remember which were not masked before."""
    _tell(session, "Masked", Vendor(root).mask())


@vendor_units.command()
@root_option
@pass_session
def unmask(session: Session, root: str) -> None:
    """Give back what pvedrbdstor masked, and nothing else."""
    _tell(session, "Gave back", Vendor(root).unmask())


@vendor_units.command()
@root_option
@pass_session
def follow(session: Session, root: str) -> None:
    """Mask where storage.cfg has a storage of ours for this node, give back where it has none."""
    _tell(session, "Changed", Vendor(root, session.node).follow())


@vendor_units.command()
@root_option
@json_option
@pass_session
def status(session: Session, root: str) -> None:
    """Show what becomes of each of them."""
    states = Vendor(root).states()
    text = table(_COLUMNS, [[unit, state.value] for unit, state in states.items()])
    session.answer({unit: state.name.lower() for unit, state in states.items()}, text)


def _tell(session: Session, done: str, units: list[str]) -> None:
    session.answer(units, f"{done}: {', '.join(units)}.\n" if units else "Nothing to change.\n")
