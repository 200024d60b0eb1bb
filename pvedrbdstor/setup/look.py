"""Look at this node: everything a setup is planned from. Changes nothing, and loads no module."""

from __future__ import annotations

import json
import os
import re
import shutil
import time

from pvedrbdstor import __version__, command
from pvedrbdstor.drbd import commands
from pvedrbdstor.errors import Error
from pvedrbdstor.fencing import corosync_conf
from pvedrbdstor.fencing import status as guard_status
from pvedrbdstor.ocfs2 import o2cb
from pvedrbdstor.pve import guests
from pvedrbdstor.setup import disks, users
from pvedrbdstor.setup.facts import FORMAT, Facts, Interface
from pvedrbdstor.setup.paths import (
    DRBD_CONF,
    FIREWALL,
    HOST_FIREWALL,
    LVM_CONF,
    LVM_LOCAL,
    MOUNTS,
    RESOURCES,
    RULES_PREFIX,
    STORAGE_CFG,
    UDEV_RULES,
)
from pvedrbdstor.setup.steps import printable
from pvedrbdstor.setup.taken import unwritten
from pvedrbdstor.setup.users import Named

_FILES = (
    corosync_conf.PATH,
    STORAGE_CFG,
    FIREWALL,
    HOST_FIREWALL,
    LVM_CONF,
    LVM_LOCAL,
    DRBD_CONF,
    o2cb.CLUSTER_CONF,
    o2cb.DEFAULTS_FILE,
)
_PROGRAMS = ("drbdadm", "drbdsetup", "mkfs.ocfs2", "o2cb", "wipefs", "modprobe", "pvesm", "ssh")
_LVM_PROGRAMS = ("pvcreate", "vgcreate", "lvcreate", "pvs", "vgs", "lvs")
_PACKAGES = ("drbd-utils", "ocfs2-tools", "pve-manager")
_SECONDS = 10.0
_FILE_MAX = 1 << 19
_DRBDADM_84 = "/lib/drbd/drbdadm-84"
"""What drbdadm becomes where the module is 8.4; which it cannot know before that is loaded."""
_NONE = 10
"""Exit status of 8.4's drbdsetup where the kernel has no resource."""
_CLAUSE_MAX = 400
_VERSION = re.compile(r"version: ([0-9.]+)")


def look() -> Facts:
    """Everything there is to know now. Raises CommandFailed and CommandTimeout where a tool that must answer does not, and OSError."""
    guard = guard_status.parse(_text(guard_status.PATH), time.clock_gettime(time.CLOCK_BOOTTIME))
    host, module, files = os.uname().nodename, _drbd(), _files()
    texts, drbd_problem = _drbd_told(module)
    named, guests_problem = _guests(files.get(STORAGE_CFG, ""))
    written = [text for path, text in files.items() if path.startswith((f"{RESOURCES}/", DRBD_CONF))]
    had = users.look(named, users.of_drbd([*written, *texts], host))
    return Facts(
        format=FORMAT,
        version=__version__,
        host=host,
        kernel=os.uname().release,
        drbd=module,
        ocfs2=_modinfo("ocfs2", "filename") is not None or os.path.isdir("/sys/module/ocfs2"),
        packages=_packages(),
        missing=tuple(program for program in _PROGRAMS if shutil.which(program, path=command.PATH) is None),
        lvm=all(shutil.which(program, path=command.PATH) for program in _LVM_PROGRAMS),
        guard=guard is not None,
        votes=guard.votes if guard is not None else None,
        disks=disks.look(had),
        interfaces=_interfaces(),
        files=files,
        folders=_folders(),
        groups=tuple(sorted({*_groups(), *(group for group in had.volumes.values() if group)})),
        resources=tuple(unwritten(texts, written)),
        drbd_problem=drbd_problem,
        guests_problem=guests_problem,
    )


def _drbd() -> str | None:
    """Of the module that is loaded, else of the one that would be."""
    found = _VERSION.match(_text("/proc/drbd") or "")
    return found[1] if found else _modinfo("drbd", "version")


def _drbd_told(module: str | None) -> tuple[list[str], str | None]:
    """All that drbdadm reads, through whatever /etc/drbd.conf includes, and what the kernel runs; and why one of them is not known."""
    loaded = os.path.exists("/proc/drbd")
    program, *words = commands.dump()
    old = not loaded and (module or "").startswith("8.4.") and os.access(_DRBDADM_84, os.X_OK)
    texts, problems = [], []
    for line in ([_DRBDADM_84 if old else program, *words], *([commands.show()] if loaded else [])):
        if shutil.which(line[0], path=command.PATH) is None:
            continue  # which _PROGRAMS tells
        try:
            answer = command.run(line, timeout=_SECONDS, check=False)
        except Error as error:
            problems.append(_clause(error.message))
            continue
        texts.append(answer.stdout)
        if answer.status not in ((0,) if "dump" in line else (0, _NONE)):
            problems.append(_clause(f"'{' '.join(line)}' says: {answer.stderr or answer.stdout}"))
    return texts, "; ".join(problems) or None


def _clause(text: str) -> str:
    return printable(" ".join(text.split())[:_CLAUSE_MAX].rstrip("."))


def _guests(storage_cfg: str) -> tuple[list[Named], str | None]:
    try:
        return users.of_guests(storage_cfg), None
    except OSError as error:
        return [], printable(f"{error.filename or guests.NODES}: {error.strerror or error}")


def _modinfo(module: str, field: str) -> str | None:
    try:
        answer = command.run(["modinfo", "--field", field, module], timeout=_SECONDS, check=False)
    except Error:
        return None
    return (answer.stdout.strip() or None) if answer.status == 0 else None


def _packages() -> dict[str, str]:
    try:
        words = ["dpkg-query", "--show", "--showformat=${Package} ${Version}\n", *_PACKAGES]
        lines = command.run(words, timeout=_SECONDS, check=False).stdout.splitlines()
    except Error:
        return {}
    return dict(line.split(" ", 1) for line in lines if line.count(" ") == 1 and not line.endswith(" "))


def _interfaces() -> tuple[Interface, ...]:
    answer = command.run(["ip", "-json", "address", "show"], timeout=_SECONDS)
    found = []
    for link in json.loads(answer.stdout or "[]"):
        name = str(link.get("ifname", ""))
        addresses = tuple(
            f"{each['local']}/{each['prefixlen']}"
            for each in link.get("addr_info", [])
            if each.get("scope") == "global" and "local" in each
        )
        speed = _text(f"/sys/class/net/{name}/speed") or ""  # EINVAL while the link is down, -1 where not known
        known = int(speed) if speed.strip().isdecimal() else None
        found.append(Interface(name, addresses, int(link.get("mtu", 0)), known or None))
    return tuple(found)


def _files() -> dict[str, str]:
    """With everything that lies where a resource would be written: one that is no file, or cannot be read, is there as well."""
    found = {path: text for path in _FILES if (text := _content(path)) is not None}
    for folder, prefix in ((RESOURCES, ""), (UDEV_RULES, RULES_PREFIX)):
        names = sorted(os.listdir(folder)) if os.path.lexists(folder) else []
        for path in (f"{folder}/{name}" for name in names if name.startswith(prefix)):
            try:
                found[path] = _content(path) or ""
            except OSError:
                found[path] = ""
    return found


def _folders() -> dict[str, tuple[str, ...]]:
    """One that is mounted is no place for another, and its content is asked nothing."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        mounted = {line.split()[4] for line in file}
    paths = [f"{MOUNTS}/{name}" for name in _names(MOUNTS)]
    return {path: ("a file system",) if path in mounted else tuple(map(printable, _names(path)[:3])) for path in paths}


def _groups() -> tuple[str, ...]:
    if shutil.which("vgs", path=command.PATH) is None:
        return ()
    answer = command.run(["vgs", "--noheadings", "-o", "vg_name"], timeout=_SECONDS)
    return tuple(answer.stdout.split())


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _content(path: str) -> str | None:
    """Byte for byte, as it may be written again with a change. One that is longer is cut off, and never written: its digest differs.
    None where there is none; raises OSError where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read(_FILE_MAX)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_FILE_MAX)
    except OSError:
        return None
