"""`pvedrbdstor volume export` and `import`: a volume as one stream, for a pipe or a file."""

from __future__ import annotations

import sys

import click

from pvedrbdstor.cli.options import json_option, storage_argument, volid_argument
from pvedrbdstor.cli.session import LONG, Session, Volume, pass_session, volid_of
from pvedrbdstor.errors import NotSupported

STDIN, STDOUT = 0, 1
RAW, QCOW2 = "raw+size", "qcow2+size"  # PVE's names; the second carries the snapshots inside the image


@click.command(short_help="Write a volume to standard output.")
@volid_argument
@click.option("--snapshot", "snap", metavar="NAME", help="The volume as it was at this snapshot.")
@click.option("--format", "format_", metavar="FORMAT", help="raw+size, or qcow2+size for a whole qcow2 image.")
@json_option
@pass_session
def export(session: Session, volid: str, snap: str | None, format_: str | None) -> None:
    """Write the volume VOLID to standard output, in the form that 'volume import' and 'pvesm import' read.

    \b
    Examples: pvedrbdstor volume export ha:100/vm-100-disk-0.raw > disk.stream
              pvedrbdstor volume export ha:100/vm-100-disk-0.raw |
                ssh other pvedrbdstor volume import ha 100/vm-100-disk-0.raw
    """
    if stream_is_terminal(STDOUT):
        raise NotSupported(detail="A disk image is no text for a terminal. Send it to a file or a pipe: add '> FILE'")
    target = session.volume(volid)
    chosen = format_ or export_format(target, snap)
    params = {"volname": target.volname, "format": chosen, "snap": snap, "with_snapshots": chosen == QCOW2}
    session.call("volume_export", target.storage, params, timeout=LONG, label="Exporting", stream=STDOUT)


@click.command("import", short_help="Make a volume from standard input.")
@storage_argument
@click.argument("volname")
@click.option("--format", "format_", metavar="FORMAT", help="raw+size or qcow2+size. Default: by the name's ending.")
@json_option
@pass_session
def import_(session: Session, storage: str, volname: str, format_: str | None) -> None:
    """Make the volume VOLNAME on STORAGE from standard input, which 'volume export' or 'pvesm export' wrote.

    VOLNAME is VMID/NAME and must not exist. A plain disk image lacks the stream's first eight bytes, its size: bring
    such a file in with 'qm disk import'.

    Example: pvedrbdstor volume import ha 100/vm-100-disk-0.raw < disk.stream
    """
    if stream_is_terminal(STDIN):
        raise NotSupported(detail="There is no stream to import. Give one on standard input: add '< FILE'")
    target = Volume(session.storage(storage), volname)
    chosen = format_ or f"{target.format}+size"
    params = {
        "volname": target.volname,
        "format": chosen,
        "with_snapshots": chosen == QCOW2,
        "allow_rename": False,
    }
    made = session.call("volume_import", target.storage, params, timeout=LONG, label="Importing", stream=STDIN)
    volid = volid_of(target.storage, made)
    session.answer({"volid": volid}, f"Made {volid}.\n")


def export_format(target: Volume, snap: str | None) -> str:
    """The stream format for a volume: a qcow2 image travels whole, with its snapshots; one snapshot of it as raw data."""
    return RAW if snap is not None else f"{target.format}+size"


def stream_is_terminal(descriptor: int) -> bool:
    """Whether someone sits where a stream should come from or go to."""
    return (sys.stdin if descriptor == STDIN else sys.stdout).isatty()
