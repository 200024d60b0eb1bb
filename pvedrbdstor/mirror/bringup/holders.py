"""Who uses a mount, in words an administrator can act on. Reads /proc and /sys alone: the mount itself may hang."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

from pvedrbdstor.mirror import mountinfo


def holders(path: str, beside: Collection[int] = ()) -> list[str]:
    """Processes with files open below ``path``, loop devices of files there, and mounts below it. beside: numbers of processes to pass over."""
    return [*_processes(path, {os.getpid(), *beside}), *_loops(path), *_mounts(path)]


def _processes(path: str, beside: Collection[int]) -> Iterator[str]:
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) not in beside and any(_below(target, path) for target in _targets(name)):
            yield _called(name)


def _targets(pid: str) -> Iterator[str]:
    """What a process has open; a process that ends meanwhile has nothing."""
    links = [f"/proc/{pid}/cwd", f"/proc/{pid}/root"]
    try:
        links += [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return
    for link in links:
        try:
            yield os.readlink(link)
        except OSError:
            continue
    yield from _mapped(pid)


def _mapped(pid: str) -> Iterator[str]:
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                yield line.rstrip("\n").partition("/")[1] + line.rstrip("\n").partition("/")[2]
    except OSError:
        return


def _called(pid: str) -> str:
    """QEMU says which guest it is: `kvm -id 100 ...`."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().decode("utf-8", "replace").split("\0")
    except OSError:
        words = [""]
    program = os.path.basename(words[0]) or "a process"
    if "-id" in words[:-1] and program.startswith(("kvm", "qemu")):
        return f"VM {words[words.index('-id') + 1]} ({program}, process {pid})"
    return f"{program} (process {pid})"


def _loops(path: str) -> Iterator[str]:
    for name in sorted(os.listdir("/sys/block")):
        try:
            with open(f"/sys/block/{name}/loop/backing_file", encoding="utf-8", errors="surrogateescape") as file:
                backing = file.read().rstrip("\n")
        except OSError:
            continue
        if _below(backing, path):
            yield f"/dev/{name} on {backing}"


def _mounts(path: str) -> Iterator[str]:
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            entry = mountinfo.parse_line(line.rstrip(b"\n"))
            if entry is not None and entry.mount_point != path and _below(entry.mount_point, path):
                yield f"a mount on {entry.mount_point}"


def _below(target: str, path: str) -> bool:
    return target == path or target.startswith(f"{path}/")
