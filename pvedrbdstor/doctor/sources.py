"""Ask this node for what the checks need. Reads only; each group of questions is a Helper's, with one deadline for all.

What cannot be read is told with the reason, never left out in silence; what is merely not there (no corosync.conf) is null.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pvedrbdstor import __version__, command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.doctor import guests, storage_file, storages, units
from pvedrbdstor.doctor.answers import Answers, text_of
from pvedrbdstor.doctor.facts import Node
from pvedrbdstor.doctor.kernels import installed_kernels
from pvedrbdstor.doctor.replication import answering, ask_replication
from pvedrbdstor.drbd import commands
from pvedrbdstor.errors import Error
from pvedrbdstor.fencing import corosync_conf, status
from pvedrbdstor.metadata.last import newest
from pvedrbdstor.mirror.bringup.gather import registered_names, registered_texts
from pvedrbdstor.mirror.gather import as_wire
from pvedrbdstor.mirror.helper import Helper
from pvedrbdstor.mirror.vendor import Vendor
from pvedrbdstor.native.extension import extension
from pvedrbdstor.ocfs2 import o2cb
from pvedrbdstor.verify import last
from pvedrbdstor.verify.write_path import last as last_write_path

SECONDS = 6.0
"""In which all of a node has to answer."""
NAMES = {
    "show": "DRBD's settings in force",
    "dump": "DRBD's configuration files",
    "adjust": "whether DRBD runs with its configuration",
    "events": "DRBD's state",
    "proc_drbd": "/proc/drbd",
    "drbd_version": "DRBD's versions",
    "cluster_conf": "o2cb's cluster.conf",
    "o2cb_defaults": "o2cb's time-outs as written",
    "o2cb_kernel": "the o2cb cluster in the kernel",
    "corosync_conf": "corosync.conf",
    "guard": "the fencing guard",
    "boot": "the clock since boot",
    "release": "the running kernel",
    "kernels": "the modules of all installed kernels",
    "vendor": "the vendors' start scripts",
    "fsck": "fsck.ocfs2",
    "units": "this package's units",
    "mountinfo": "the mounts",
    "addresses": "the network's addresses",
    "speeds": "the network's speeds",
    "firewall": "Proxmox's firewall",
    "disk_speeds": "the speed of the disks below DRBD",
    "write_caches": "the caches of the disks below DRBD",
    "answers": "whether the other node's address answers",
    "verdict": "the mirror's verdict",
    "folder": "the mount point",
    "superblock": "OCFS2's superblock, journals and map of clusters",
    "volumes": "images and their fragmentation",
    "guests": "guests' configurations",
    "verify": "the last comparison of the copies",
    "write_path": "the last check of the write path",
    "metadata": "the backup of metadata",
    storage_file.SOURCE: "storage.cfg, and with it at any storage",
}
"""Source -> what it is called in sentences."""
FIREWALL = {"cluster": "/etc/pve/firewall/cluster.fw", "host": "/etc/pve/local/host.fw"}
_TOOL_SECONDS = 4.0
_RESOURCE = re.compile(r"[\w.-]{1,64}", re.ASCII)
_VENDOR_FILES = {
    "drbd.service": ("/lib/systemd/system/drbd.service", "/etc/init.d/drbd"),
    "o2cb.service": ("/lib/systemd/system/o2cb.service", "/etc/init.d/o2cb"),
    "ocfs2.service": ("/lib/systemd/system/ocfs2.service", "/etc/init.d/ocfs2"),
}


def gather(
    node: str,
    configs: Sequence[StorageConfig],
    nodes_path: str | None = None,
    aliases: Mapping[str, Sequence[str]] = {},
) -> Node:
    """Everything this node can tell in SECONDS. nodes_path: of the guests' configurations; None: images and guests are left to the other
    node, which looks. aliases: storage -> the ids under which guests may name what is on it."""
    if configs:
        with suppress(Error):  # whoever needs it tells that
            extension()  # once, not in each process of its own that is begun now
    resources = sorted({config.resource for config in configs if _RESOURCE.fullmatch(config.resource)})
    asked: list[tuple[Helper, tuple[str, ...]]] = []

    def ask(work: Callable[[Any], object], question: object, *names: str) -> None:
        helper = Helper(work)
        helper.ask(question)
        asked.append((helper, names))

    ask(ask_drbd, resources, "show", "dump", "adjust", "events", "proc_drbd", "drbd_version", "answers")
    ask(ask_o2cb, None, "cluster_conf", "o2cb_defaults", "o2cb_kernel")
    ask(ask_system, None, "corosync_conf", "guard", "boot", "release", "vendor", "fsck", "mountinfo", "units")
    ask(ask_kernels, None, "kernels")
    ask(ask_network, None, "addresses", "speeds")
    ask(ask_firewall, None, "firewall")
    if configs:
        ask(ask_replication, [[config.resource, config.volume] for config in configs], "disk_speeds", "write_caches")
    for config in configs:
        wire, name = as_wire(config), config.id
        ask(storages.ask_folder, wire, f"folder:{name}")
        ask(storages.ask_superblock, wire, f"superblock:{name}")
        if nodes_path is not None:
            ask(storages.ask_volumes, {**wire, "images_dir": config.images_dir}, f"volumes:{name}")
            question = {"nodes": nodes_path, "path": config.path, "ids": list(aliases.get(name, (name,)))}
            ask(guests.ask_guests, question, f"guests:{name}")
    told = Answers()
    for config in configs:
        told.take(f"verdict:{config.id}", lambda config=config: storages.verdict(config))  # type: ignore[misc]
        told.take(f"verify:{config.id}", lambda config=config: _last_verify(config.id))  # type: ignore[misc]
        told.take(f"write_path:{config.id}", lambda config=config: _last_write_path(config.id))  # type: ignore[misc]
        told.take(f"metadata:{config.id}", lambda config=config: newest(config.id, node))  # type: ignore[misc]
    _collect(asked, told)
    return Node(node, __version__, time.time(), told.values, told.unread)


def _collect(asked: Sequence[tuple[Helper, tuple[str, ...]]], told: Answers) -> None:
    """Each answer as it comes, so that one that hangs keeps no other from being heard."""
    deadline = time.monotonic() + SECONDS
    waiting = {fd: pair for pair in asked if (fd := pair[0].fileno()) is not None}
    try:
        while waiting and (left := deadline - time.monotonic()) > 0:
            for fd in select.select(list(waiting), [], [], left)[0]:
                helper, names = waiting[fd]
                answer = helper.answer()
                if answer is not None or helper.fileno() is None:
                    told.merge(answer, names, "its process ended without a word of it")
                    del waiting[fd]
        for _, names in asked:
            told.merge(None, names, f"it did not answer within {SECONDS:.0f} s")
    finally:
        for helper, _ in asked:
            helper.close()


def _last_verify(storage: str) -> dict[str, object] | None:
    try:
        return last.as_json(last.read(storage))
    except last.Unknown as error:
        raise OSError(0, str(error)) from error


def _last_write_path(storage: str) -> dict[str, object] | None:
    try:
        return last_write_path.as_json(last_write_path.read(storage))
    except last_write_path.Unknown as error:
        raise OSError(0, str(error)) from error


# --- questions, as work of a Helper ----------------------------------------------------------------------------------


def ask_drbd(resources: object = ()) -> dict[str, object]:
    told = Answers()
    told.take("proc_drbd", lambda: text_of("/proc/drbd"))
    if told.values.get("proc_drbd") is None:  # no module: the tools would only say so, each in its own words
        return told.as_json(show=None, adjust={}, events=None, dump=None, drbd_version=None, answers=None)
    told.take("show", lambda: _output(commands.show()))
    told.take("dump", lambda: _output(commands.dump()))
    told.take("events", lambda: _output(commands.events2_now(statistics=True)))
    told.take("drbd_version", lambda: _output(commands.version()))
    names = [name for name in resources if isinstance(name, str)] if isinstance(resources, list) else []
    told.take("adjust", lambda: {name: _output(commands.adjustments(name)) for name in names})
    missing = next((told.unread[source] for source in ("show", "events") if source in told.unread), None)
    if missing is not None:
        told.unread["answers"] = missing
    else:
        show, events = str(told.values["show"]), str(told.values["events"])
        told.take("answers", lambda: answering(show, events, names) if names else None)
    return told.as_json()


def ask_o2cb(_question: object = None) -> dict[str, object]:
    told = Answers()
    told.take("cluster_conf", lambda: text_of(o2cb.CLUSTER_CONF))
    told.take("o2cb_defaults", lambda: text_of(o2cb.DEFAULTS_FILE))
    told.take("o2cb_kernel", _registered)
    return told.as_json()


def _registered() -> dict[str, dict[str, str]]:
    """Cluster -> its files below configfs, for o2cb.parse_registered()."""
    return {name: registered_texts(name) for name in registered_names()}


def ask_system(_question: object = None) -> dict[str, object]:
    told = Answers()
    told.take("corosync_conf", lambda: text_of(corosync_conf.PATH))
    told.take("guard", lambda: text_of(status.PATH))
    told.take("boot", lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
    told.take("release", lambda: f"{os.uname().release} {os.uname().version}")
    told.take("vendor", _vendor)
    told.take("fsck", _fsck)
    told.take("mountinfo", lambda: text_of("/proc/self/mountinfo"))
    told.take("units", units.states)
    return told.as_json()


def _vendor() -> dict[str, str]:
    """What becomes of the units that are installed."""
    states = Vendor().states()
    return {
        unit: state.name
        for unit, state in states.items()
        if any(os.path.exists(path) for path in _VENDOR_FILES.get(unit, ()))
    }


def _fsck() -> str | None:
    """What it says of its version; None where there is none."""
    if shutil.which("fsck.ocfs2", path=command.PATH) is None:
        return None
    result = command.run(["fsck.ocfs2", "-V"], timeout=_TOOL_SECONDS, check=False)
    return (result.stdout + result.stderr).strip()


def ask_kernels(_question: object = None) -> dict[str, object]:
    told = Answers()
    told.take("kernels", installed_kernels)
    return told.as_json()


def ask_firewall(_question: object = None) -> dict[str, object]:
    told = Answers()
    told.take("firewall", lambda: {name: text_of(path) for name, path in FIREWALL.items()})
    return told.as_json()


def ask_network(_question: object = None) -> dict[str, object]:
    told = Answers()
    told.take("addresses", lambda: _output(["ip", "-json", "-details", "address"]))
    told.take("speeds", _speeds)
    return told.as_json()


def _speeds() -> dict[str, str]:
    """Of each interface that tells one; reading that of one without a link is an error (EINVAL)."""
    found = {}
    for name in os.listdir("/sys/class/net"):
        try:
            with open(f"/sys/class/net/{name}/speed", encoding="ascii", errors="replace") as file:
                found[name] = file.read(32).strip()
        except OSError:
            continue
    return found


def _output(argv: list[str]) -> str:
    return command.run(argv, timeout=_TOOL_SECONDS).stdout
