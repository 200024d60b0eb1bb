"""`pvedrbdstor mirror peer-off`: what only a person can know of a node that does not answer."""

from __future__ import annotations

import click

from pvedrbdstor.cli.options import confirm, json_option, storage_argument, yes_option
from pvedrbdstor.cli.session import Session, pass_session
from pvedrbdstor.errors import SystemCallFailed
from pvedrbdstor.mirror.live import peer_off as word


@click.command("peer-off", short_help="Say that the other node is switched off.")
@storage_argument
@yes_option
@json_option
@pass_session
def peer_off(session: Session, storage: str, yes: bool) -> None:
    """Say that the other node of STORAGE is switched off, so that its guests may be started on this one.

    Without fencing nobody but you can know: a node that was cut off looks the same from here as one that has died. If it runs,
    both nodes change copies of their own, and one side's changes will be lost. It holds until the nodes are connected again.

    Example: pvedrbdstor mirror peer-off ha
    """
    config = session.storage(storage).config
    confirm(f"Is the other node of '{storage}' switched off for certain? If it runs, data will be lost.", yes)
    try:
        word.say(config.id)
    except OSError as error:
        remedy = "Is this run as root? Is there room in /run?"
        reason = error.strerror or str(error)
        raise SystemCallFailed(operation="Writing", path=str(error.filename), reason=reason, remedy=remedy) from error
    text = f"{config.id}: the other node counts as switched off until it is connected again.\n"
    session.answer({"storage": config.id, "peer_off": True}, text)
