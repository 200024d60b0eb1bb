"""`pvedrbdstor volume snapshot ...`"""

from __future__ import annotations

import click

from pvedrbdstor.cli.options import (
    confirm,
    even_if_in_use_option,
    json_option,
    refuse_if_referenced,
    volid_argument,
    yes_option,
)
from pvedrbdstor.cli.output import Column, size_cell, table, time_cell
from pvedrbdstor.cli.session import Session, pass_session

_LIST = (Column("Snapshot"), Column("Size", right=True), Column("Created"))


@click.group()
def snapshot() -> None:
    """List, take, delete and roll back to the snapshots of one volume.

    Proxmox's snapshot of a guest is a snapshot of each of its volumes plus a section in its configuration: take and
    delete those with 'qm snapshot' and 'pct snapshot', so that both stay together.
    """


@snapshot.command("list")
@volid_argument
@json_option
@pass_session
def list_(session: Session, volid: str) -> None:
    """Show the snapshots of VOLID, the oldest first.

    Example: pvedrbdstor volume snapshot list ha:100/vm-100-disk-0.raw
    """
    target = session.volume(volid)
    found = session.call("volume_snapshot_info", target.storage, {"volname": target.volname})
    snapshots = sorted(({"name": name, **about} for name, about in found.items()), key=_age)
    rows = [[shot["name"], size_cell(shot.get("virtual-size")), time_cell(shot.get("timestamp"))] for shot in snapshots]
    session.answer(snapshots, table(_LIST, rows) if rows else f"{target.volid} has no snapshots.\n")


@snapshot.command()
@volid_argument
@click.argument("name")
@json_option
@pass_session
def create(session: Session, volid: str, name: str) -> None:
    """Keep VOLID as it is now under NAME. Takes no time and, at first, no space.

    Of a disk that is being written to this is like a disk after a power cut; for running guests 'qm snapshot' does
    better.

    Example: pvedrbdstor volume snapshot create ha:100/vm-100-disk-0.raw before-upgrade
    """
    target = session.volume(volid)
    session.call("volume_snapshot", target.storage, {"volname": target.volname, "snap": name})
    session.answer({"volid": target.volid, "snapshot": name}, f"Took snapshot {name} of {target.volid}.\n")


@snapshot.command()
@volid_argument
@click.argument("name")
@yes_option
@json_option
@pass_session
def delete(session: Session, volid: str, name: str, yes: bool) -> None:
    """Destroy the snapshot NAME of VOLID. The volume itself and its other snapshots stay as they are.

    Example: pvedrbdstor volume snapshot delete ha:100/vm-100-disk-0.raw before-upgrade
    """
    target = session.volume(volid)
    confirm(f"Destroy the snapshot {name} of {target.volid}?", yes)
    session.call("volume_snapshot_delete", target.storage, {"volname": target.volname, "snap": name}, label="Deleting")
    session.answer({"volid": target.volid, "snapshot": name}, f"Deleted snapshot {name} of {target.volid}.\n")


@snapshot.command()
@volid_argument
@click.argument("name")
@yes_option
@even_if_in_use_option
@json_option
@pass_session
def rollback(session: Session, volid: str, name: str, yes: bool, even_if_in_use: bool) -> None:
    """Make VOLID what it was at snapshot NAME. What was written to it since is lost; all snapshots stay.

    Refused while the configuration of a guest names the volume: then use 'qm rollback' or 'pct rollback'.

    Example: pvedrbdstor volume snapshot rollback ha:100/vm-100-disk-0.raw before-upgrade
    """
    target = session.volume(volid)
    refuse_if_referenced(session, target, even_if_in_use)
    confirm(f"Roll {target.volid} back to {name}, and lose what was written since?", yes)
    session.call("volume_snapshot_rollback", target.storage, {"volname": target.volname, "snap": name})
    session.answer({"volid": target.volid, "snapshot": name}, f"Rolled {target.volid} back to {name}.\n")


def _age(shot: dict[str, object]) -> tuple[float, str]:
    timestamp = shot.get("timestamp")
    return (float(timestamp) if isinstance(timestamp, int | float) else 0.0, str(shot["name"]))
