"""`pvedrbdstor doctor`: what is wrong with the storages and the two nodes, what that means, and what helps."""

from __future__ import annotations

import json
from dataclasses import replace

import click

from pvedrbdstor.cli import configuration
from pvedrbdstor.cli.options import StorageName, json_option
from pvedrbdstor.cli.session import Session, pass_session


@click.command(short_help="Say what is wrong, what it means and what helps.")
@click.argument("storages", metavar="[STORAGE]...", type=StorageName(), nargs=-1)
@click.option(
    "--accept",
    "accepted",
    metavar="ID[:STORAGE]",
    multiple=True,
    help="Do not count what is found under this id (of this storage) for the exit status; for what is to stay as it is. May be given several times.",
)
@click.option("--local", is_flag=True, help="Look at this node alone.")
@click.option("--facts", is_flag=True, hidden=True, help="Print what was seen here, for the other node.")
@json_option
@pass_session
def doctor(session: Session, storages: tuple[str, ...], accepted: tuple[str, ...], local: bool, facts: bool) -> None:
    """Look at STORAGE, or at all storages of this node, and at both nodes; say what is wrong, what that means and what helps.

    It only reads. Ends with status 0 when there is nothing, or hints alone; with 1 when the worst is a warning, or something could not
    be looked at; with 2 when there is an error.

    Example: pvedrbdstor doctor
    """
    found_storages, unusable = configuration.chosen(session, storages)
    configs = [storage.config for storage in found_storages]
    if facts:
        from pvedrbdstor.doctor import sources
        from pvedrbdstor.doctor.facts import as_json

        click.echo(json.dumps(as_json(sources.gather(session.node, configs))))
        return
    _refuse_unknown(accepted)
    from pvedrbdstor.doctor import look

    aliases = {storage.config.id: configuration.ids(storage) for storage in found_storages}
    peers = look.Peers() if local else look.peers_of(session.node, configs)
    seen = replace(look.look(session.node, configs, session.nodes_path, aliases, peers), unusable=unusable)
    from pvedrbdstor.doctor import checks, words  # not before the other node was asked, which takes longer
    from pvedrbdstor.doctor.finding import counted, exit_status

    found = checks.examine(seen)
    session.answer(words.as_json(seen, found, accepted), words.text(seen, found, accepted))
    if status := exit_status(counted(found, accepted)):
        raise click.exceptions.Exit(status)


def _refuse_unknown(accepted: tuple[str, ...]) -> None:
    """A wrong id would accept nothing, without a word."""
    if not accepted:
        return
    from pvedrbdstor.doctor import checks

    known = {entry.id for entry in checks.CATALOGUE}
    for each in accepted:
        if each.partition(":")[0] not in known:
            raise click.BadParameter(
                f"'{each}' is no id of a finding: those stand in brackets below each finding", param_hint="'--accept'"
            )
