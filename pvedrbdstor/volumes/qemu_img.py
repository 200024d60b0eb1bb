"""qemu-img(1), run on a file of an opened folder: for what only it can do, creating and changing qcow2 images in place."""

from __future__ import annotations

from collections.abc import Sequence

from pvedrbdstor.call import Call
from pvedrbdstor.command import run


def create_qcow2(folder_fd: int, name: str, size: int, preallocation: str, call: Call) -> None:
    """Make an existing empty file a qcow2 image of ``size`` bytes. Raises CommandFailed, CommandTimeout."""
    options = f"preallocation={preallocation}"
    _run(folder_fd, ["create", "-q", "-f", "qcow2", "-o", options, f"./{name}", str(size)], call)


def resize_qcow2(folder_fd: int, name: str, size: int, preallocation: str, call: Call, keep_fds: Sequence[int]) -> None:
    """Grow a qcow2 image to ``size`` bytes."""
    argv = ["resize", "-q", "-f", "qcow2", f"--preallocation={preallocation}", f"./{name}", str(size)]
    _run(folder_fd, argv, call, keep_fds)


def snapshot_qcow2(folder_fd: int, name: str, action: str, snap: str, call: Call, keep_fds: Sequence[int]) -> None:
    """Internal snapshots: ``action`` is -c (create), -a (apply) or -d (delete)."""
    _run(folder_fd, ["snapshot", "-q", action, snap, f"./{name}"], call, keep_fds)


def convert_to_raw(folder_fd: int, name: str, target: str, snap: str | None, call: Call) -> None:
    """Write a qcow2 image's contents, or those of one of its snapshots, into the file ``target`` (an absolute path)."""
    source = ["-l", f"snapshot.name={snap}"] if snap else []
    _run(folder_fd, ["convert", "-q", "-f", "qcow2", "-O", "raw", *source, f"./{name}", target], call)


def _run(folder_fd: int, arguments: Sequence[str], call: Call, keep_fds: Sequence[int] = ()) -> None:
    """Run in the opened folder itself, so that no path is looked up again and backing files are found beside it."""
    call.check()
    run(
        ["/usr/bin/qemu-img", *arguments],
        timeout=call.seconds_left(),
        cwd=f"/proc/self/fd/{folder_fd}",
        keep_fds=keep_fds,
        poll=call.check,
    )
