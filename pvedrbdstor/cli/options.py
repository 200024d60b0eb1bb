"""Options and arguments that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from pvedrbdstor.cli import output
from pvedrbdstor.cli.session import DEFAULT_CONFIG, Session, Volume
from pvedrbdstor.errors import GuestsUnknown, ReferencedByGuest
from pvedrbdstor.pve import storage_cfg
from pvedrbdstor.pve.guests import Sought, describe, find_references

FLAG = "--even-if-in-use"
_Function = TypeVar("_Function", bound=Callable[..., Any])


class StorageName(click.ParamType):
    """The id of a `drbdocfs2` storage; the shell completes it from storage.cfg. Never touches the mount."""

    name = "storage"

    def __init__(self, suffix: str = "") -> None:
        self._suffix = suffix

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        # Nothing is run while the shell completes: the root's option was parsed, but its function not called.
        path = ctx.find_root().params.get("config") or DEFAULT_CONFIG
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                ids = storage_cfg.storage_ids(file.read())
        except OSError:
            return []
        names = (storage_id + self._suffix for storage_id in ids)
        return [click.shell_completion.CompletionItem(name) for name in names if name.startswith(incomplete)]


GUEST = click.IntRange(100, 999999999)  # PVE::JSONSchema pve-vmid

storage_argument = click.argument("storage", type=StorageName())
volid_argument = click.argument("volid", type=StorageName(":"))
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask, do it.")
even_if_in_use_option = click.option(FLAG, is_flag=True, help="Do it even if a guest has the volume.")


def json_option(function: _Function) -> _Function:
    """`--json`, after the command as well as before it."""
    return click.option(
        "--json", is_flag=True, expose_value=False, callback=_set_json, help="Print one JSON document."
    )(function)


def confirm(question: str, yes: bool) -> None:
    """Ask on a terminal, unless told ``yes``; where no one can answer, the command itself is the decision.

    Ends the program with status 1 when the answer is no.
    """
    if yes or not asks():
        return
    if not click.confirm(question, err=True):
        output.say("nothing was done.")
        raise click.exceptions.Exit(1)


def asks() -> bool:
    """Whether someone can answer a question."""
    return sys.stdin.isatty()


def refuse_if_referenced(session: Session, volume: Volume, even_if_in_use: bool) -> None:
    """Raise ReferencedByGuest when a guest's configuration names the volume, GuestsUnknown when that cannot be told."""
    if even_if_in_use:
        return
    sought = Sought(volume.storage.aliases, volume.volname, volume.path)
    try:
        references = find_references(sought, session.nodes_path)
    except OSError as error:
        detail = f"{error.filename or session.nodes_path} cannot be read ({error.strerror})"
        raise GuestsUnknown(volume=volume.volid, detail=detail, flag=FLAG) from error
    if references:
        raise ReferencedByGuest(volume=volume.volid, users=describe(references), flag=FLAG)


def _set_json(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Session).as_json = True
