"""The texts of a set: how the disk, LVM, DRBD, o2cb and the storage are set up on this node. Each is written as its own tool takes it back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.doctor.answers import reason_of, text_of
from pvedrbdstor.drbd import commands
from pvedrbdstor.drbd.lower import lower_disk
from pvedrbdstor.errors import Error
from pvedrbdstor.ocfs2 import o2cb

_TOOL_SECONDS = 20.0
_GROUP_MAX = 4 << 20
_SYS = "/sys/class/block"


def write(config: StorageConfig, minor: int, section: str, folder: str) -> dict[str, str]:
    """All of them, as files of the folder: name -> why it is missing, of those that could not be read."""
    missing = {}
    for name, ask in _texts(config, minor, section, folder):
        try:
            text = ask()
        except (Error, OSError) as error:
            missing[name] = reason_of(error)
            continue
        if text is not None:
            with open(f"{folder}/{name}", "x", encoding="utf-8", errors="replace") as file:
                file.write(text)
    return missing


def _texts(
    config: StorageConfig, minor: int, section: str, folder: str
) -> Iterator[tuple[str, Callable[[], str | None]]]:
    resource = config.resource
    yield "storage.cfg", lambda: section
    yield "drbd.res", lambda: _output(commands.dump(resource))
    yield "drbd-show.txt", lambda: _output(commands.show(resource))
    yield "cluster.conf", lambda: text_of(o2cb.CLUSTER_CONF)
    yield "o2cb.default", lambda: text_of(o2cb.DEFAULTS_FILE)
    try:
        lower = lower_disk(_output(commands.show(resource)), resource, config.volume)
    except Error:
        return  # drbd-show.txt tells why
    if lower is None:
        return
    name = os.path.basename(os.path.realpath(lower.path))
    yield "lower.txt", lambda: f"{lower.path} (/dev/{name}) below {minor}: {_sectors(name) * 512} bytes\n"
    group = _group(lower.path) if name.startswith("dm-") else None
    if group is not None:
        yield "lvm.txt", lambda: _group_text(group, f"{folder}/lvm.new")
    for disk in sorted(_disks(name)):
        yield f"partitions-{disk}.txt", lambda disk=disk: _partitions(disk)  # type: ignore[misc]


def _group(path: str) -> str | None:
    """The volume group of a logical volume; None where it is none, or LVM's tools do not say."""
    try:
        return _output(["lvs", "--noheadings", "-o", "vg_name", path]).strip() or None
    except Error:
        return None


def _group_text(group: str, path: str) -> str | None:
    """As vgcfgrestore(8) takes it."""
    try:
        _output(["vgcfgbackup", "-f", path, group])
        return text_of(path, _GROUP_MAX)
    finally:
        if os.path.exists(path):
            os.unlink(path)


def _disks(name: str) -> set[str]:
    """The disks below a block device, by their kernel's names; a disk without anything below is itself one."""
    below = os.listdir(f"{_SYS}/{name}/slaves") if os.path.isdir(f"{_SYS}/{name}/slaves") else []
    if below:
        return {disk for inner in below for disk in _disks(inner)}
    real = os.path.realpath(f"{_SYS}/{name}")
    return {os.path.basename(os.path.dirname(real)) if os.path.exists(f"{real}/partition") else name}


def _partitions(disk: str) -> str | None:
    """As sfdisk(8) takes it; None for a disk without a table."""
    result = command.run(["sfdisk", "-d", f"/dev/{disk}"], timeout=_TOOL_SECONDS, check=False)
    return result.stdout or None


def _sectors(name: str) -> int:
    return int(text_of(f"{_SYS}/{name}/size") or 0)


def _output(argv: list[str]) -> str:
    return command.run(argv, timeout=_TOOL_SECONDS).stdout
