"""What one node gives to the archive: texts by their names in it. Reads only; each is bounded in size and time."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator

from pvedrbdstor import __version__, command
from pvedrbdstor.doctor import storage_file
from pvedrbdstor.doctor.answers import reason_of, text_of
from pvedrbdstor.fencing import paths as fencing_paths
from pvedrbdstor.mirror.live import view
from pvedrbdstor.pve.section_config import Section, parse
from pvedrbdstor.pve.storage_cfg import STORAGE_TYPE
from pvedrbdstor.report.secrets import LEFT_OUT

TEXT_MAX = 1 << 20
"""Of one text, in bytes; of a longer one the end is kept."""
_CUT_LINE = 64
_FILE_MAX = 4 << 20
SECONDS = 20.0
"""After which no other source is begun."""
_TOOL_SECONDS = 5.0
_LINES = 3000
_KERNEL = re.compile(
    r"drbd|ocfs2|o2cb|o2net|o2hb|o2dlm|\bdlm|JBD2|jbd2|I/O error|hung|blocked for more|Link is (?:Up|Down)|link (?:up|down)|Out of memory|oom-kill",
    re.IGNORECASE,
)
_TRACE = re.compile(
    r"blocked for more than|Call Trace|cut here|\bBUG:|kernel BUG at|Oops|general protection|Kernel panic|soft lockup"
)
_TRACE_END = re.compile(r"</TASK>|end trace|end Kernel panic")
_TRACE_LINES = 60
_PACKAGES = (
    *(
        "pvedrbdstor",
        "drbd-utils",
        "drbd-dkms",
        "ocfs2-tools",
        "corosync",
        "corosync-qdevice",
        "pve-manager",
        "pve-cluster",
    ),
    *(
        "pve-qemu-kvm",
        "qemu-server",
        "pve-container",
        "libpve-storage-perl",
        "proxmox-kernel-*",
        "pve-kernel-*",
        "linux-image-*",
    ),
)
_UNITS = (
    "pvedrbdstor",
    "pvedrbdstor-fence",
    "pvedrbdstor-bringup@*",
    "pvedrbdstor-mirrors",
    "pvedrbdstor-vendor-units",
    "pvedrbdstor-verify@*",
    "pvedrbdstor-metadata",
)
_CLUSTER_UNITS = ("corosync", "corosync-qdevice", "pve-cluster", "pve-ha-lrm", "pve-ha-crm", "watchdog-mux")
_KERNEL_BEFORE = ("journalctl", "--no-pager", "-o", "short-iso", "-k", "-b", "-1", "-n", "20000")
"""What a node that was fenced said before it was reset: dmesg(1) has forgotten it."""
_KEPT = frozenset(
    [
        "path",
        "content",
        "nodes",
        "disable",
        "shared",
        "preallocation",
        "prune-backups",
        "max-protected-backups",
        "maxfiles",
        "format",
        "content-dirs",
        "create-base-path",
        "create-subdirs",
        "mkdir",
        "is_mountpoint",
        "bwlimit",
        "snapshot-as-volume-chain",
    ]
)
"""Properties of a storage whose values are told, beside our own."""


def gather(config_path: str, nodes_path: str) -> dict[str, str]:
    """Everything of this node, secrets too, each text whole. What cannot be read is told in its place. The paths are storage_file.read()'s."""
    deadline = time.monotonic() + SECONDS
    found = {}
    for name, ask in _sources(config_path, nodes_path):
        if time.monotonic() > deadline:
            found[name] = "not read: the time was up\n"
            continue
        try:
            text = ask()
        except Exception as error:  # a bug in one, too, must cost no other
            text = f"not read: {reason_of(error)}\n"
        if text is not None:
            found[name] = text
    return found


def cut(text: str) -> str:
    """The end of it, where it is too long. Only of a text without secrets: what is left of one that was cut in two is known by no word."""
    data = text.encode("utf-8", "replace")
    if len(data) <= TEXT_MAX:
        return text
    kept = data[-(TEXT_MAX - _CUT_LINE) :]
    return f"(the first {len(data) - len(kept)} bytes are left out)\n{kept.decode('utf-8', 'ignore')}"


def _sources(config_path: str, nodes_path: str) -> Iterator[tuple[str, Callable[[], str | None]]]:
    yield "versions.txt", _versions
    for path in _configurations():
        yield f"etc/{path.removeprefix('/etc/')}", lambda path=path: _file(path)  # type: ignore[misc]
    yield "etc/pve/storage.cfg", lambda: our_storages(storage_file.read(config_path, nodes_path))
    yield "drbd/proc-drbd.txt", lambda: _file("/proc/drbd")
    yield "drbd/events.txt", lambda: _run("drbdsetup", "events2", "--now", "--statistics")
    yield "drbd/show.txt", lambda: _run("drbdsetup", "show")
    yield "drbd/dump.txt", lambda: _run("drbdadm", "dump")
    yield "ocfs2/mounted.txt", lambda: _ocfs2_mounts(_file("/proc/self/mountinfo") or "")
    yield "fencing/status.json", lambda: _file(fencing_paths.STATUS)
    yield "live.txt", _live
    yield "network.txt", lambda: _run("ip", "-details", "address")
    yield "log/kernel.txt", lambda: kernel_lines(_run("dmesg", "--time-format", "iso", limit=16 << 20))
    yield "log/kernel-boot-before.txt", lambda: kernel_lines(_run(*_KERNEL_BEFORE, limit=16 << 20))
    yield "log/pvedrbdstor.txt", lambda: _journal(_UNITS)
    yield "log/cluster.txt", lambda: _journal(_CLUSTER_UNITS)


def _configurations() -> list[str]:
    """Of DRBD, o2cb and corosync; never a key, and nothing below /etc/pve/priv."""
    fixed = ["/etc/drbd.conf", "/etc/ocfs2/cluster.conf", "/etc/default/o2cb", "/etc/corosync/corosync.conf"]
    try:
        inside = sorted(name for name in os.listdir("/etc/drbd.d") if name.endswith((".res", ".conf")))
    except OSError:
        inside = []
    return [*fixed, *(f"/etc/drbd.d/{name}" for name in inside[:64])]


def _file(path: str) -> str | None:
    return text_of(path, _FILE_MAX)


def our_storages(text: str) -> str:
    """The sections of our type, each property that is not known by its name alone."""
    return "\n".join(_section(section) for section in parse(text).values() if section.type == STORAGE_TYPE)


def _section(section: Section) -> str:
    lines = [f"{section.type}: {section.id}"]
    for name, value in section.properties.items():
        told = value if name in _KEPT or name.startswith("drbdocfs2-") else LEFT_OUT
        lines.append(f"\t{name} {told}")
    return "\n".join(lines) + "\n"


def kernel_lines(text: str) -> str:
    """Those of DRBD, OCFS2 and its cluster, of network links and memory, each with the call trace behind it; the last of them."""
    lines, traced = [], 0
    for line in text.splitlines():
        if _TRACE.search(line):
            traced = _TRACE_LINES
        if traced or _KERNEL.search(line):
            lines.append(line)
        traced = 0 if _TRACE_END.search(line) else max(0, traced - 1)
    return "\n".join(lines[-_LINES:]) + "\n"


def _ocfs2_mounts(text: str) -> str:
    return "".join(f"{line}\n" for line in text.splitlines() if " - ocfs2" in line)


def _versions() -> str:
    system = os.uname()
    form = "${Package} ${Version} ${db:Status-Abbrev}\n"
    packages = command.run(["dpkg-query", "-W", "-f", form, *_PACKAGES], timeout=_TOOL_SECONDS, check=False).stdout
    drbd = command.run(["drbdadm", "--version"], timeout=_TOOL_SECONDS, check=False).stdout
    return f"pvedrbdstor {__version__}\n{system.sysname} {system.release} {system.version} {system.machine}\n\n{packages}\n{drbd}"


def _live() -> str:
    """What the monitor said last of each storage."""
    try:
        names = sorted(name for name in os.listdir(view.FOLDER) if name.endswith(".json"))
    except FileNotFoundError:
        return "no monitor has run since boot\n"
    return "".join(f"{name}\n{_file(f'{view.FOLDER}/{name}')}\n" for name in names[:32])


def _journal(names: tuple[str, ...]) -> str:
    units = [word for unit in names for word in ("-u", unit)]
    return _run("journalctl", "--no-pager", "-o", "short-iso", "-n", str(_LINES), *units, limit=8 << 20)


def _run(*argv: str, limit: int = 4 << 20) -> str:
    return command.run(list(argv), timeout=_TOOL_SECONDS, limit=limit).stdout
