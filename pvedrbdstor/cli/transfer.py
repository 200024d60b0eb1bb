"""`pvedrbdstor volume export` and `import`: a volume as one stream, for a pipe or a file."""

from __future__ import annotations

import sys

import click

from pvedrbdstor.cli.options import json_option, storage_argument, volid_argument
from pvedrbdstor.cli.session import LONG, Session, Volume, pass_session, volid_of
from pvedrbdstor.errors import BadRequest

STDIN, STDOUT = 0, 1


@click.command(short_help="Write a volume to standard output.")
@volid_argument
@click.option("--snapshot", "snap", metavar="NAME", help="The volume as it was at this snapshot.")
@click.option("--format", "format_", metavar="FORMAT", help="raw+size or qcow2+size. Default: by the name's ending.")
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
        raise BadRequest(detail="a disk image is no text for a terminal. Send it to a file or a pipe: add '> FILE'")
    target = session.volume(volid)
    params = {
        "volname": target.volname,
        "format": format_ or default_format(target),
        "snap": snap,
        "with_snapshots": False,
    }
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
        raise BadRequest(detail="there is no stream to import. Give one on standard input: add '< FILE'")
    target = Volume(session.storage(storage), volname)
    params = {
        "volname": target.volname,
        "format": format_ or default_format(target),
        "with_snapshots": False,
        "allow_rename": False,
    }
    made = session.call("volume_import", target.storage, params, timeout=LONG, label="Importing", stream=STDIN)
    volid = volid_of(target.storage, made)
    session.answer({"volid": volid}, f"Made {volid}.\n")


def default_format(target: Volume) -> str:
    """The stream format of a volume, as PVE's volume_export_formats names it first."""
    return f"{target.format}+size"


def stream_is_terminal(descriptor: int) -> bool:
    """Whether someone sits where a stream should come from or go to."""
    return (sys.stdin if descriptor == STDIN else sys.stdout).isatty()
