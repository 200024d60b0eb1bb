"""What `setup plan` asks on a terminal, for what was not on the command line; without a terminal, which option is missing."""

from __future__ import annotations

from collections.abc import Mapping

import click

from pvedrbdstor.cli.options import asks
from pvedrbdstor.cli.setup_text import disk_table
from pvedrbdstor.fencing import corosync_conf
from pvedrbdstor.setup.checks import is_free
from pvedrbdstor.setup.facts import Facts
from pvedrbdstor.setup.network import links
from pvedrbdstor.setup.remote import Both


def storage() -> str:
    return str(_ask("the storage's name: STORAGE", "What is the storage to be called?", "ha"))


def nodes(both: Both, disks: Mapping[str, str]) -> tuple[dict[str, Facts], dict[str, str]]:
    """The facts of both nodes, and the disk of each. Raises SetupRefused, UsageError."""
    own = both.look(both.own)
    names = list(disks) if len(disks) >= 2 else [both.own, _other(own, both.own, disks)]
    found = {name: own if name == both.own else both.look(name) for name in names}
    return found, {name: disks.get(name) or _disk(name, found[name]) for name in names}


def network(nodes: Mapping[str, Facts], given: object) -> str | None:
    """Asked for only where both nodes are in several; None leaves it to the plan."""
    if given is not None or not asks():
        return None if given is None else str(given)
    found = links(nodes)
    if len(found) < 2:
        return None
    for link in found:
        speed = "speed not known" if link.speed is None else f"{link.speed} Mbit/s"
        click.echo(f"  {link.network}: {', '.join(link.addresses.values())}, {speed}", err=True)
    choice = click.Choice([link.network for link in found])
    return str(click.prompt("Which network replicates?", type=choice, show_choices=False, err=True))


def _other(own: Facts, node: str, disks: Mapping[str, str]) -> str:
    named = [name for name in disks if name != node]
    conf = corosync_conf.parse(own.files.get(corosync_conf.PATH, ""))
    others = named or [each.name for each in conf.nodes if each.name is not None and each.name != node]
    if len(others) == 1:
        return others[0]
    return str(_ask("both nodes: --disk NODE:DEVICE", "Which is the other node?", None))


def _disk(node: str, facts: Facts) -> str:
    free = [disk.path for disk in facts.disks if is_free(disk)]
    if asks():
        click.echo(f"Disks of {node}:\n{disk_table(facts.disks)}", err=True, nl=False)
    return str(
        _ask(f"the disk of {node}: --disk {node}:DEVICE", f"Which disk of {node}?", free[0] if len(free) == 1 else None)
    )


def _ask(missing: str, question: str, default: str | None) -> str:
    if not asks():
        raise click.UsageError(f"nothing says {missing}")
    return str(click.prompt(question, default=default, err=True))
