"""`pvedrbdstor volume ...`: what people do to disk images."""

from __future__ import annotations

from typing import Any

import click

from pvedrbdstor.cli import transfer
from pvedrbdstor.cli.options import (
    GUEST,
    confirm,
    even_if_in_use_option,
    json_option,
    refuse_if_referenced,
    storage_argument,
    volid_argument,
    yes_option,
)
from pvedrbdstor.cli.output import Column, size_cell, table, text_cell, time_cell
from pvedrbdstor.cli.session import LONG, Session, pass_session, volid_of
from pvedrbdstor.cli.snapshot import snapshot
from pvedrbdstor.errors import LeftoversRemain
from pvedrbdstor.sizes import KIB, format_size, parse_new_size, parse_size

_LIST = (
    Column("Volume"),
    Column("Format"),
    Column("Size", right=True),
    Column("Used", right=True),
    Column("Created"),
    Column("Parent"),
)


class _InOrder(click.Group):
    """Lists its commands as they were added: what is used most comes first."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder)
def volume() -> None:
    """Work on disk images: list, make, grow, snapshot, clone, free.

    A volume is called STORAGE:VMID/NAME, for example ha:100/vm-100-disk-0.raw. 'pvedrbdstor volume list STORAGE'
    shows the names.
    """


@volume.command("list", short_help="Show the volumes of a storage.")
@storage_argument
@click.option("--vmid", type=GUEST, help="Only the volumes of this guest.")
@json_option
@pass_session
def list_(session: Session, storage: str, vmid: int | None) -> None:
    """Show the volumes of STORAGE: size, blocks used, time of making.

    Example: pvedrbdstor volume list ha --vmid 100
    """
    where = session.storage(storage)
    images = session.call("list_images", where, {"vmid": vmid, "volids": None})
    rows = [_list_row(image) for image in images]
    session.answer(images, table(_LIST, rows) if rows else f"No volumes on storage {storage}.\n")


@volume.command(short_help="Show the size, format and times of a volume.")
@volid_argument
@json_option
@pass_session
def info(session: Session, volid: str) -> None:
    """Show the size, format and times of the volume VOLID.

    Example: pvedrbdstor volume info ha:100/vm-100-disk-0.raw
    """
    target = session.volume(volid)
    found = session.call("volume_size_info", target.storage, {"volname": target.volname})
    lines = [
        ("Volume", target.volid),
        ("Format", text_cell(found["format"])),
        ("Size", f"{size_cell(found['size'])} ({found['size']} bytes)"),
        ("Used", size_cell(found["used"])),
        ("Created", time_cell(found["ctime"])),
        ("Parent", text_cell(found["parent"])),
    ]
    session.answer({"volid": target.volid, **found}, "".join(f"{name + ':':<9}{value}\n" for name, value in lines))


@volume.command(short_help="Make a new, empty volume.")
@storage_argument
@click.argument("vmid", type=GUEST)
@click.argument("size")
@click.option("--format", "format_", type=click.Choice(["raw", "qcow2"]), default="raw", show_default=True)
@click.option("--name", help="The file's name, for example vm-100-disk-7.raw. Default: the next free one.")
@json_option
@pass_session
def alloc(session: Session, storage: str, vmid: int, size: str, format_: str, name: str | None) -> None:
    """Make a new, empty volume of SIZE for guest VMID on STORAGE.

    SIZE is written like 32G, 512M or 1.5T; a bare number counts KiB, as with pvesm. The guest need not exist, and
    does not get the volume by this: attach it with 'qm set' or 'pct set'.

    Example: pvedrbdstor volume alloc ha 100 32G
    """
    where = session.storage(storage)
    wanted = parse_size(size)
    params = {"vmid": vmid, "format": format_, "name": name, "size_kib": wanted // KIB}
    volname = session.call("alloc_image", where, params, timeout=LONG, label="Allocating")
    volid = volid_of(where, volname)
    session.answer({"volid": volid, "size": wanted}, f"Made {volid} with {format_size(wanted)}.\n")


@volume.command(short_help="Destroy a volume with its snapshots.")
@volid_argument
@yes_option
@even_if_in_use_option
@json_option
@pass_session
def free(session: Session, volid: str, yes: bool, even_if_in_use: bool) -> None:
    """Destroy the volume VOLID with its snapshots. This cannot be undone.

    Refused while the configuration of a guest names the volume: then remove it there.

    Example: pvedrbdstor volume free ha:100/vm-100-disk-0.raw
    """
    target = session.volume(volid)
    refuse_if_referenced(session, target, even_if_in_use)
    confirm(f"Destroy {target.volid} with all its snapshots?", yes)
    session.call("free_image", target.storage, {"volname": target.volname, "is_base": target.is_base}, label="Freeing")
    session.answer({"volid": target.volid}, f"Freed {target.volid}.\n")


@volume.command(short_help="Make a volume larger.", context_settings={"ignore_unknown_options": True})
@volid_argument
@click.argument("size")
@even_if_in_use_option
@json_option
@pass_session
def resize(session: Session, volid: str, size: str, even_if_in_use: bool) -> None:
    """Grow the volume VOLID to SIZE, or by SIZE if that begins with +.

    Volumes only grow. A running guest does not notice this: for its disks use 'qm disk resize' or 'pct resize', so
    this is refused while the configuration of a guest names the volume.

    \b
    Examples: pvedrbdstor volume resize ha:100/vm-100-disk-0.raw 64G
              pvedrbdstor volume resize ha:100/vm-100-disk-0.raw +10G
    """
    target = session.volume(volid)
    refuse_if_referenced(session, target, even_if_in_use)
    current = session.call("volume_size_info", target.storage, {"volname": target.volname})["size"]
    wanted = parse_new_size(size, current)
    params = {"volname": target.volname, "size": wanted}
    session.call("volume_resize", target.storage, params, timeout=LONG, label="Growing")
    session.answer(
        {"volid": target.volid, "size": wanted}, f"{target.volid} has {format_size(wanted)} ({wanted} bytes) now.\n"
    )


volume.add_command(snapshot)


@volume.command(short_help="Make a volume with the content of another.")
@volid_argument
@click.argument("vmid", type=GUEST)
@click.option("--snapshot", "snap", metavar="NAME", help="Clone the volume as it was at this snapshot.")
@even_if_in_use_option
@json_option
@pass_session
def clone(session: Session, volid: str, vmid: int, snap: str | None, even_if_in_use: bool) -> None:
    """Make a new volume for guest VMID with the content of VOLID. Takes no time and, at first, no space.

    The two share their blocks until one of them changes; each may be freed without the other. The clone of a disk
    that is being written to is like a disk after a power cut, so this is refused while the configuration of a guest
    names the volume: clone a snapshot or a template, or shut the guest down and say --even-if-in-use.

    Example: pvedrbdstor volume clone ha:100/vm-100-disk-0.raw 101 --snapshot before-upgrade
    """
    target = session.volume(volid)
    if snap is None and not target.is_base:  # those never change
        refuse_if_referenced(session, target, even_if_in_use)
    params = {"volname": target.volname, "vmid": vmid, "snap": snap}
    volname = session.call("clone_image", target.storage, params, label="Cloning")
    new = volid_of(target.storage, volname)
    session.answer({"volid": new}, f"Made {new} from {target.volid}{f' at {snap}' if snap else ''}.\n")


@volume.command(short_help="Make a volume a template, read-only for good.")
@volid_argument
@yes_option
@even_if_in_use_option
@json_option
@pass_session
def template(session: Session, volid: str, yes: bool, even_if_in_use: bool) -> None:
    """Turn the volume VOLID into a template: read-only for good, and called base-... from now on.

    Refused while the configuration of a guest names the volume: then use 'qm template' or 'pct template'.

    Example: pvedrbdstor volume template ha:100/vm-100-disk-0.raw
    """
    target = session.volume(volid)
    refuse_if_referenced(session, target, even_if_in_use)
    confirm(f"Make {target.volid} read-only for good?", yes)
    volname = session.call("create_base", target.storage, {"volname": target.volname})
    new = volid_of(target.storage, volname)
    session.answer({"volid": new}, f"{target.volid} is the template {new} now.\n")


@volume.command(short_help="Rename a volume, or give it to another guest.")
@volid_argument
@click.option("--vmid", type=GUEST, help="Give it to this guest. Default: the guest that has it.")
@click.option("--name", help="The new file name, for example vm-101-disk-3.raw. Default: the next free one.")
@even_if_in_use_option
@json_option
@pass_session
def rename(session: Session, volid: str, vmid: int | None, name: str | None, even_if_in_use: bool) -> None:
    """Give the volume VOLID another name, or to another guest; its snapshots go with it.

    Refused while the configuration of a guest names the volume: then use 'qm disk move --target-vmid' or
    'pct move-volume'.

    Example: pvedrbdstor volume rename ha:100/vm-100-disk-0.raw --vmid 101
    """
    if vmid is None and name is None:
        raise click.UsageError("say --vmid, --name or both")
    target = session.volume(volid)
    refuse_if_referenced(session, target, even_if_in_use)
    params = {
        "volname": target.volname,
        "target_vmid": target.owner if vmid is None else vmid,
        "target_name": name,
    }
    volname = session.call("rename_volume", target.storage, params)
    new = volid_of(target.storage, volname)
    session.answer({"volid": new}, f"{target.volid} is called {new} now.\n")


volume.add_command(transfer.export)
volume.add_command(transfer.import_)


@volume.command(short_help="Clean up after a crash.")
@storage_argument
@json_option
@pass_session
def recover(session: Session, storage: str) -> None:
    """Clean up on STORAGE after a crash: finish or undo what was begun, remove what was left over.

    Work in progress, here or on another node, is left alone. Every activation of the storage does the same: this is
    for those who do not want to wait for it.

    Example: pvedrbdstor volume recover ha
    """
    where = session.storage(storage)
    result = session.call("recover", where, {}, timeout=LONG, label="Recovering")
    session.answer(result, _recovered(result))
    if result["failed"]:
        raise LeftoversRemain(count=result["failed"], storage=storage)


def _list_row(image: dict[str, Any]) -> list[str]:
    return [
        image["volid"],
        image["format"],
        size_cell(image["size"]),
        size_cell(image["used"]),
        time_cell(image["ctime"]),
        text_cell(image["parent"]),
    ]


def _recovered(result: dict[str, int]) -> str:
    if not any(result.values()):
        return "Nothing was left over.\n"
    return "Leftovers removed: {removed}, operations finished: {finished}, undone: {undone}.\n".format_map(result)
