"""`pvedrbdstor metadata`: keep what finds the images on a disk whose file system is gone, and use it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace

import click

from pvedrbdstor.cli import configuration, output
from pvedrbdstor.cli.options import StorageName, json_option
from pvedrbdstor.cli.session import LONG, SHORT, Session, pass_session
from pvedrbdstor.doctor import storage_file
from pvedrbdstor.errors import BadConfig, Error, MetadataBroken, MetadataWithout, NotMounted
from pvedrbdstor.metadata import sets
from pvedrbdstor.pve.section_config import parse
from pvedrbdstor.pve.storage_cfg import Storage
from pvedrbdstor.sizes import format_size


@click.group(short_help="Keep what finds images on a disk whose file system is gone.")
def metadata() -> None:
    """Keep a map of where each image lies on the disk, with all that describes the storage, for the day the file system is gone.

    It is no backup of the guests: it holds no data of theirs. It finds them on a disk that still has them.
    """


@metadata.command(short_help="Save a set of this node's storages.")
@click.argument("storages", metavar="[STORAGE]...", type=StorageName(), nargs=-1)
@click.option("--to", "below", type=click.Path(file_okay=False), metavar="FOLDER", help="Below this folder instead.")
@json_option
@pass_session
def save(session: Session, storages: tuple[str, ...], below: str | None) -> None:
    """Save the map of STORAGE, or of all storages that are mounted on this node, below /var/lib/pvedrbdstor/metadata.

    It only reads the storage, at idle priority, and guests go on. The last five sets are kept, or fewer where they are large.

    Example: pvedrbdstor metadata save ha
    """
    from pvedrbdstor.metadata.save import GUESTS_FIRST
    from pvedrbdstor.verify import priority

    priority.take(GUESTS_FIRST)
    answers, lines, failed = [], [], 0
    found, unusable = configuration.chosen(session, storages)
    for why in unusable.values():
        output.say(f"passed over: {why}")
    for storage in found:
        try:
            document, line = _save(session, storage, os.path.abspath(below) if below else sets.FOLDER)
        except NotMounted as error:
            if storages:
                raise
            output.say(f"passed over: {error.message}")
            continue
        except Error as error:  # the others are worth as much
            output.say(error.message)
            failed = error.exit_status
            continue
        answers.append(document)
        lines.append(line)
    session.answer(answers, "".join(lines) or ("" if failed else "nothing saved: no storage is mounted on this node\n"))
    if failed:
        raise click.exceptions.Exit(failed)


def _save(session: Session, storage: Storage, below: str) -> tuple[dict[str, object], str]:
    from pvedrbdstor.metadata.save import Looker, save

    config = storage.config
    looking = replace(session, make_dispatcher=Looker)
    began = time.monotonic()
    saved = save(
        config,
        _section(session, config.id),
        session.node,
        time.time(),
        below,
        lambda folder: looking.call(
            "metadata", storage, {"folder": folder}, timeout=LONG, silence=SHORT, label="Looking"
        ),
    )
    seconds = time.monotonic() - began
    manifest = saved.found.manifest
    count = manifest["map"]["files"]
    text = f"{saved.found.path}: {count} files in {manifest['map']['runs']} pieces, {format_size(saved.found.bytes)}, {seconds:.1f} s\n"
    text += "".join(f"  not in the map: {path} ({why})\n" for path, why in manifest["map"]["failed"])
    text += "".join(f"  missing: {name} ({why})\n" for name, why in manifest["missing"].items())
    text += "".join(f"  removed, as newer ones are kept: {path}\n" for path in saved.removed)
    document = {"path": saved.found.path, "bytes": saved.found.bytes, "seconds": seconds, "removed": saved.removed}
    return {**document, "manifest": manifest}, text


def _section(session: Session, name: str) -> str:
    """As it stands in storage.cfg."""
    try:
        section = parse(storage_file.read(session.config_path, session.nodes_path))[name]
    except KeyError as error:
        raise BadConfig(
            storage=name, detail=f"{session.config_path} has changed meanwhile: its section is gone"
        ) from error
    return f"{section.type}: {section.id}\n" + "".join(
        f"\t{key} {value}\n" for key, value in section.properties.items()
    )


@metadata.command("list", short_help="Show the sets, and whether they are as written.")
@click.argument("storages", metavar="[STORAGE]...", type=str, nargs=-1)
@click.option(
    "--from",
    "below",
    type=click.Path(file_okay=False),
    default=sets.FOLDER,
    metavar="FOLDER",
    help="Below this folder instead.",
)
@json_option
@pass_session
def list_(session: Session, storages: tuple[str, ...], below: str) -> None:
    """Show the sets of STORAGE, or of all, the newest first, with every sum checked. Ends with 1 when one of them is damaged.

    Neither the storage nor its section in storage.cfg need be there.
    """
    names = storages or tuple(sorted(os.listdir(below) if os.path.isdir(below) else ()))
    found = [entry for name in names for entry in _listed(name, f"{os.path.abspath(below)}/{name}")]
    text = "".join(_list_line(entry) for entry in found) or f"no sets below {below}\n"
    session.answer(found, text)
    if any(entry["damaged"] for entry in found):
        raise click.exceptions.Exit(1)


def _listed(storage: str, folder: str) -> Iterator[dict[str, object]]:
    for path in sets.paths(folder) if os.path.isdir(folder) else ():
        try:
            found = sets.read(path)
        except sets.Broken as error:
            yield {"storage": storage, "path": path, "at": None, "bytes": None, "damaged": [str(error)]}
            continue
        about = {"storage": storage, "path": path, "at": found.at, "bytes": found.bytes}
        yield {**about, "damaged": sets.damaged(found)}


def _list_line(entry: dict[str, object]) -> str:
    size = entry["bytes"]
    told = format_size(size) if isinstance(size, int) else "?"
    damaged = entry["damaged"]
    state = f"DAMAGED: {'; '.join(damaged)}" if isinstance(damaged, list) and damaged else "as written"
    return f"{entry['path']}  {told}  {state}\n"


@metadata.command(short_help="Print the commands that cut an image out of a disk.")
@click.argument("folder", metavar="SET", type=click.Path(file_okay=False, exists=True))
@click.argument("name", metavar="VMID/NAME")
@click.option(
    "--from", "device", metavar="DEVICE", help="Read from this device or file: the lower disk, or a copy of it."
)
@click.option("--to", "target", metavar="FILE", help="The file to make.")
@pass_session
def locate(session: Session, folder: str, name: str, device: str | None, target: str | None) -> None:
    """Print a shell script that copies one image from where it lay on the disk when SET was saved. It runs nothing.

    Another file of the storage, such as a snapshot, is named by its path below the storage's root. Works on any machine with the package.

    \b
    Example: pvedrbdstor metadata locate /var/lib/pvedrbdstor/metadata/ha/pve1-20260104-031500 \\
                 100/vm-100-disk-0.raw --from /dev/sdb1 --to /mnt/disk-0.raw
    """
    from pvedrbdstor.metadata import places
    from pvedrbdstor.metadata.script import script

    try:
        found = sets.read(os.path.abspath(folder))
        wrong = sets.damaged(found)
        if any(line.startswith(places.NAME) for line in wrong):
            raise sets.Broken(f"of {folder}, {'; '.join(wrong)}")
        images = found.manifest.get("images_dir", "images")
        placed = places.find(f"{found.path}/{places.NAME}", (f"{images}/{name}", name))
    except sets.Broken as error:
        raise MetadataBroken(detail=str(error)) from error
    if placed is None:
        raise MetadataWithout(path=found.path, name=name)
    minor = found.manifest.get("minor", 0)
    click.echo(
        script(placed, found.at, device or f"/dev/drbd{minor}", target or os.path.basename(placed.path)), nl=False
    )
