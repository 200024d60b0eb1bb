"""`pvedrbdstor doctor`: what is wrong with the storages and the two nodes, what that means, and what helps."""

from __future__ import annotations

import json
from dataclasses import replace

import click

from pvedrbdstor.cli import configuration, output
from pvedrbdstor.cli.options import StorageName, json_option
from pvedrbdstor.cli.session import Session, pass_session
from pvedrbdstor.errors import BadConfig
from pvedrbdstor.pve import storage_cfg
from pvedrbdstor.pve.storage_cfg import Storage


@click.command(short_help="Say what is wrong, what it means and what helps.")
@click.argument("storages", metavar="[STORAGE]...", type=StorageName(), nargs=-1)
@click.option("--local", is_flag=True, help="Look at this node alone.")
@click.option("--facts", is_flag=True, hidden=True, help="Print what was seen here, for the other node.")
@json_option
@pass_session
def doctor(session: Session, storages: tuple[str, ...], local: bool, facts: bool) -> None:
    """Look at STORAGE, or at all storages of this node, and at both nodes; say what is wrong, what that means and what helps.

    It only reads. Ends with status 0 when there is nothing, or hints alone; with 1 when the worst is a warning, or something could not
    be looked at; with 2 when there is an error.

    Example: pvedrbdstor doctor
    """
    found_storages, unusable = chosen(session, storages)
    configs = [storage.config for storage in found_storages]
    if facts:
        from pvedrbdstor.doctor import sources
        from pvedrbdstor.doctor.facts import as_json

        click.echo(json.dumps(as_json(sources.gather(session.node, configs))))
        return
    from pvedrbdstor.doctor import checks, look, words
    from pvedrbdstor.doctor.finding import exit_status

    aliases = {storage.config.id: ids(storage) for storage in found_storages}
    seen = look.look(session.node, configs, session.nodes_path, aliases, local=local)
    seen = replace(seen, unusable=unusable)
    found = checks.examine(seen)
    session.answer(words.as_json(seen, found), words.text(seen, found))
    if status := exit_status(found):
        raise click.exceptions.Exit(status)


def ids(storage: Storage) -> list[str]:
    """Its own first."""
    return [storage.config.id, *sorted(storage.aliases - {storage.config.id})]


def chosen(session: Session, names: tuple[str, ...]) -> tuple[list[Storage], dict[str, str]]:
    """Those named, or all that are usable on this node; and of those whose section is not right, why. A disabled one is passed over. Raises BadConfig for one that was named and is not, and where
    storage.cfg does not answer."""
    text = configuration.read(session.config_path, session.nodes_path)
    if names:
        return [_usable(text, name, session.node) for name in dict.fromkeys(names)], {}
    found, unusable = [], {}
    for name in storage_cfg.storage_ids_on(text, session.node):
        try:
            storage = storage_cfg.find_storage(text, name)
        except BadConfig as error:
            unusable[name] = error.message
            continue
        if storage.disabled:
            output.say(f"passed over: storage '{name}' is disabled.")
        else:
            found.append(storage)
    return found, unusable


def _usable(text: str, name: str, node: str) -> Storage:
    storage = storage_cfg.find_storage(text, name)
    storage.check_usable_on(node)
    return storage
