"""`pvedrbdstor space`: who has the space of a storage, and what deleting frees."""

from __future__ import annotations

from typing import Any

import click

from pvedrbdstor.cli import output
from pvedrbdstor.cli.options import GUEST, json_option, storage_argument
from pvedrbdstor.cli.session import LONG, SHORT, Session, pass_session
from pvedrbdstor.errors import SystemCallFailed
from pvedrbdstor.pve.guests import configurations

_SORTED_BY = ("guest", "frees", "allocated", "exclusive", "shared", "apparent")


@click.command(short_help="Say who has the space, and what deleting frees.")
@storage_argument
@click.option("--guest", "vmid", type=GUEST, help="Only this guest, and the templates it belongs to.")
@click.option("--sort", "key", type=click.Choice(_SORTED_BY), default="guest", show_default=True, help="Largest first.")
@click.option(
    "--svg",
    "file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Draw a picture to FILE as well, of one guest with --guest.",
)
@json_option
@pass_session
def space(session: Session, storage: str, vmid: int | None, key: str, file: str | None) -> None:
    """Say who has the space of STORAGE: each guest, image and snapshot, what they share, and what deleting each frees.

    Snapshots and clones share blocks, so what one of them takes is not what goes with it. This asks the file system where
    every file lies, and counts. It only reads, and guests go on.

    \b
    Examples: pvedrbdstor space ha --sort frees
              pvedrbdstor space ha --svg /root/ha.svg
    """
    from pvedrbdstor.cli import space_picture, space_table

    where = session.storage(storage)
    found = session.call("space", where, {}, timeout=LONG, silence=SHORT, label="Looking")
    found = _arranged(found, _kinds(session.nodes_path), key)
    if file is not None:
        _write(file, space_picture.svg(storage, found, vmid))
    shown = found if vmid is None else _only(found, vmid)
    session.answer(
        {"storage": storage, **shown}, space_table.text(storage, shown, vmid, space_table.room_of_terminal())
    )
    for path, why in found["failed"]:
        output.say(f"{path} could not be looked into ({why}): what it has is counted as the file system's.")


def _kinds(nodes: str) -> dict[int, str] | None:
    """VM or CT, of each guest that has a configuration; None where these cannot be read."""
    try:
        return {vmid: kind for vmid, kind, _ in configurations(nodes)}
    except OSError:
        return None


def _arranged(found: dict[str, Any], kinds: dict[int, str] | None, key: str) -> dict[str, Any]:
    """kind: of each guest; "none" where no node has a configuration for it, null where that is not known."""
    guests = [
        {
            **guest,
            "kind": None if kinds is None else kinds.get(guest["vmid"], "none"),
            "images": _sorted(guest["images"], key),
        }
        for guest in found["guests"]
    ]
    return {**found, "guests": _sorted(guests, key)}


def _sorted(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return rows if key == "guest" else sorted(rows, key=lambda row: -int(row[key]))


def _only(found: dict[str, Any], vmid: int) -> dict[str, Any]:
    return {
        **found,
        "guests": [guest for guest in found["guests"] if guest["vmid"] == vmid],
        "families": [family for family in found["families"] if vmid in (family["template"], *family["clones"])],
    }


def _write(file: str, content: str) -> None:
    try:
        with open(file, "w", encoding="utf-8") as target:
            target.write(content)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SystemCallFailed(operation="Writing", path=file, reason=reason, remedy="Name another file") from error
