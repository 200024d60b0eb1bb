"""The archive: a tar.gz that only its owner may read, with a list of what is in it."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Mapping
from contextlib import suppress

from pvedrbdstor.report.secrets import without_secrets
from pvedrbdstor.report.sources import cut

TOTAL_MAX = 32 << 20
"""Bytes of all texts before they are packed; the largest are left out first."""
CONTENTS = "CONTENTS.txt"
_WHAT = {
    "doctor.json": "what `pvedrbdstor doctor --json` found",
    "doctor.txt": "the same for people",
    "versions.txt": "packages and kernel",
    "etc/": "configurations of DRBD, o2cb, corosync, and of our storages in storage.cfg",
    "drbd/": "DRBD's state, settings and configuration as its tools tell them",
    "ocfs2/": "mounts of OCFS2",
    "fencing/": "what the guard tells of itself",
    "live.txt": "what the monitor said last of each storage",
    "facts.json": "what the doctor saw of the node; of guests which volumes they name and the lines of VMs' disks on our storages, of the firewall "
    "whether it lets the mirrors through",
    "network.txt": "interfaces and addresses",
    "log/kernel.txt": "the kernel's lines of DRBD, OCFS2 and its cluster",
    "log/kernel-boot-before.txt": "the same of the boot before, as of a node that was fenced",
    "log/pvedrbdstor.txt": "our own services' logs",
    "log/cluster.txt": "logs of corosync, its QDevice, pve-cluster and Proxmox's HA",
}


def packed(documents: Mapping[str, object], now: float) -> dict[str, str]:
    """All as texts that go into the archive: without secrets, not too large in all, with a list of contents."""
    clean = without_secrets(documents)
    kept, left_out = _bounded({name: cut(text) if name.endswith(".txt") else text for name, text in clean.items()})
    contents = [f"A report of pvedrbdstor, {time.strftime('%Y-%m-%d %H:%M:%S %z', time.localtime(now))}.", ""]
    contents += [
        "Passwords, keys and shared secrets are left out. Names and addresses of nodes, guests' numbers, names and options of their disks, and names",
        "of storages are in it: look through it before you give it away.",
        "",
    ]
    contents += [
        f"{len(text.encode('utf-8', 'replace')):>9}  {name}  {_what(name)}".rstrip()
        for name, text in sorted(kept.items())
    ]
    contents += [f"{'':>9}  {name}  (left out: the archive would be too large)" for name in sorted(left_out)]
    return {CONTENTS: "\n".join(contents) + "\n", **kept}


def write(path: str, top: str, texts: Mapping[str, str], now: float) -> int:
    """A new file below which all texts lie in the folder ``top``: its size in bytes. Nothing is left where that fails. Raises OSError, FileExistsError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            with tarfile.open(fileobj=file, mode="w:gz") as archive:
                for name, text in texts.items():
                    data = text.encode("utf-8", "replace")
                    entry = tarfile.TarInfo(f"{top}/{name}")
                    entry.size, entry.mode, entry.mtime = len(data), 0o600, int(now)
                    archive.addfile(entry, io.BytesIO(data))
            file.flush()
            os.fsync(file.fileno())
            return os.fstat(file.fileno()).st_size
    except BaseException:
        with suppress(OSError):
            os.unlink(path)
        raise


def _bounded(texts: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    sizes = {name: len(text.encode("utf-8", "replace")) for name, text in texts.items()}
    left_out: list[str] = []
    while sum(sizes.values()) > TOTAL_MAX:
        largest = max(sizes, key=lambda name: (sizes[name], name))
        left_out.append(largest)
        del sizes[largest]
    return {name: texts[name] for name in texts if name in sizes}, left_out


def _what(name: str) -> str:
    """Of a text, whose name may have its node before it."""
    for end, what in _WHAT.items():
        inside = name.partition("/")[2]
        if end in (name, inside) or (end.endswith("/") and inside.startswith(end)):
            return what
    return ""
