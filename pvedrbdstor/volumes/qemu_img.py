"""qemu-img(1), run on a file of an opened folder: for what only it can do, creating and changing qcow2 images in place."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from pvedrbdstor.call import Call
from pvedrbdstor.command import Result, run
from pvedrbdstor.errors import CommandFailed

_SOUND = (0, 3)  # qemu-img(1), check: 3 is leaked clusters, which waste space and harm nothing


def create_qcow2(folder_fd: int, name: str, size: int, preallocation: str, call: Call) -> None:
    """Make an existing empty file a qcow2 image of ``size`` bytes. Raises CommandFailed, CommandTimeout."""
    options = f"preallocation={preallocation}"
    _run(folder_fd, ["create", "-q", "-f", "qcow2", "-o", options, f"./{name}", str(size)], call)


def resize_qcow2(folder_fd: int, name: str, size: int, preallocation: str, call: Call) -> None:
    """Grow a qcow2 image to ``size`` bytes."""
    argv = ["resize", "-q", "-f", "qcow2", f"--preallocation={preallocation}", f"./{name}", str(size)]
    _run(folder_fd, argv, call)


def snapshot_qcow2(folder_fd: int, name: str, action: str, snap: str, call: Call) -> None:
    """Internal snapshots: ``action`` is -c (create), -a (apply) or -d (delete)."""
    _run(folder_fd, ["snapshot", "-q", action, snap, f"./{name}"], call)


def create_vmdk(folder_fd: int, name: str, size: int, call: Call) -> None:
    """Make an existing empty file a vmdk image; PVE wants one to unpack an OVA into."""
    _run(folder_fd, ["create", "-q", "-f", "vmdk", f"./{name}", str(size)], call)


def convert_to_raw(folder_fd: int, name: str, target: str, snap: str | None, call: Call) -> None:
    """Write a qcow2 image's contents, or those of one of its snapshots, into the file ``target`` (an absolute path)."""
    source = ["-l", f"snapshot.name={snap}"] if snap else []
    _run(folder_fd, ["convert", "-q", "-f", "qcow2", "-O", "raw", *source, f"./{name}", target], call)


def damage_in_qcow2(folder_fd: int, name: str, call: Call) -> str | None:
    """What qemu-img finds wrong with an image, in its words; None where nothing is, or only clusters nobody uses."""
    result = _run(folder_fd, ["check", "-q", "-f", "qcow2", f"./{name}"], call, check=False)
    if result.status in _SOUND:
        return None
    lines = (result.stderr.strip() or result.stdout.strip() or f"exit status {result.status}").splitlines()
    return lines[0].strip()[:200]


def _run(folder_fd: int, arguments: Sequence[str], call: Call, *, check: bool = True) -> Result:
    """Run in the opened folder itself, so that no path is looked up again and backing files are found beside it.

    A full file system is an OSError (ENOSPC), as it is where we write ourselves.
    """
    call.check()
    try:
        return run(
            ["/usr/bin/qemu-img", *arguments],
            timeout=call.seconds_left(),
            cwd=f"/proc/self/fd/{folder_fd}",
            check=check,
            poll=call.check,
        )
    except CommandFailed as error:
        if os.strerror(errno.ENOSPC) in str(error.fields["output"]):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise
