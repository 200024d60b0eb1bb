"""Ask DRBD, o2cb and the mount for the facts that a verdict is made from. Everything here may hang: run it in a Helper.

gather() does that for one look, with a deadline of its own; the monitor (mirror.live) asks the same questions again and
again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import commands, config, generation, proc_drbd
from pvedrbdstor.drbd.config import ResourceConfig
from pvedrbdstor.drbd.events2 import State, parse_now
from pvedrbdstor.drbd.generation import Generation
from pvedrbdstor.drbd.history import History, Loss
from pvedrbdstor.errors import Error, NotMounted, WrongMount
from pvedrbdstor.fencing import corosync_conf, status
from pvedrbdstor.fencing.configured import is_ours
from pvedrbdstor.fencing.corosync_conf import CorosyncConf
from pvedrbdstor.mirror import mountinfo
from pvedrbdstor.mirror.facts import Facts, Mount, View, drbd_facts
from pvedrbdstor.mirror.helper import Helper
from pvedrbdstor.mirror.mount import mirror
from pvedrbdstor.mirror.status import capacity
from pvedrbdstor.ocfs2 import o2cb
from pvedrbdstor.ocfs2.o2cb import Timeouts

PROC_DRBD = "/proc/drbd"
_TOOL_SECONDS = 5.0
_PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What an administrator has set. resources: in force; None where DRBD's tools did not tell.

    dump: the configuration as written, None where it cannot be read. timeouts: o2cb's, None where not registered.
    corosync: None where there is no corosync.conf. guard: what it tells of itself, None where it does not run. node: this
    one's name, by which DRBD's configuration knows it.
    """

    resources: Mapping[str, ResourceConfig] | None = None
    dump: str | None = None
    timeouts: Timeouts | None = None
    corosync: CorosyncConf | None = None
    guard: status.Status | None = None
    node: str = ""

    def other_hosts(self, resource: str) -> tuple[str, ...]:
        hosts = () if self.dump is None else config.hosts(self.dump, resource)
        return tuple(host for host in hosts if host != self.node)

    def own_handler(self, resource: str) -> bool:
        return self.dump is not None and is_ours(config.fence_peer_handler(self.dump, resource))

    def fence_handler(self, resource: str) -> bool | None:
        return None if self.dump is None else config.fence_peer_handler(self.dump, resource) is not None


@dataclass(frozen=True, slots=True)
class Probe:
    """One answer of a mount. mounted: None when it could not be looked at. sizes: bytes total, avail and used.

    device: (major, minor) of the mounted file system.
    """

    mounted: bool | None = None
    wrong: str | None = None
    read_only: bool = False
    sizes: Mapping[str, int] | None = None
    device: tuple[int, int] | None = None

    @property
    def mount(self) -> Mount:
        return Mount(self.mounted, self.wrong, self.read_only)


# --- questions, as work of a Helper: JSON values in and out --------------------------------------------------------


def ask_state(_question: object = None) -> dict[str, str | None]:
    """DRBD's present state: `now`, None where its tools failed, and `proc`, None where the module is not loaded."""
    return {"now": _output(commands.events2_now(statistics=True)), "proc": _text(PROC_DRBD)}


def ask_settings(_question: object = None) -> dict[str, object]:
    """What settings_of() reads."""
    return {
        "show": _output(commands.show()),
        "dump": _output(commands.dump()),
        "o2cb": _registered(),
        "corosync": _text(corosync_conf.PATH),
        "guard": _text(status.PATH),
        "boot": time.clock_gettime(time.CLOCK_BOOTTIME),
        "node": os.uname().nodename,
    }


def ask_mount(storage: Mapping[str, object]) -> dict[str, object]:
    """What probe_of() reads, of the storage given as StorageConfig.from_wire() wants it."""
    try:
        with mirror(StorageConfig.from_wire(storage)) as opened:
            return {
                "mounted": True,
                "read_only": opened.facts.read_only,
                "sizes": capacity(opened),
                "device": list(opened.facts.device),
            }
    except NotMounted:
        return {"mounted": False}
    except WrongMount as error:
        return {"mounted": True, "wrong": error.message}


# --- their answers as values ---------------------------------------------------------------------------------------


def settings_of(answer: Mapping[str, object]) -> Settings:
    show, dump, registered = (answer.get(key) for key in ("show", "dump", "o2cb"))
    corosync, guard, boot, node = (answer.get(key) for key in ("corosync", "guard", "boot", "node"))
    return Settings(
        resources=config.parse_show(show) if isinstance(show, str) else None,
        dump=dump if isinstance(dump, str) else None,
        timeouts=o2cb.parse_registered(registered).timeouts if isinstance(registered, dict) else None,
        corosync=corosync_conf.parse(corosync) if isinstance(corosync, str) else None,
        guard=status.parse(guard, boot) if isinstance(guard, str) and isinstance(boot, float) else None,
        node=node if isinstance(node, str) else "",
    )


def probe_of(answer: Mapping[str, object]) -> Probe:
    mounted, wrong, sizes, device = (answer.get(key) for key in ("mounted", "wrong", "sizes", "device"))
    return Probe(
        mounted=mounted if isinstance(mounted, bool) else None,
        wrong=wrong if isinstance(wrong, str) else None,
        read_only=answer.get("read_only") is True,
        sizes=sizes if isinstance(sizes, dict) else None,
        device=(int(device[0]), int(device[1])) if isinstance(device, list) else None,
    )


def silent_mount(path: str, seconds: float, last: Probe | None = None) -> Mount:
    """Of a mount that has not answered for so long: what the table of mounts alone tells, and what its last answer did."""
    entry = mounted_at(path)
    if entry is None:
        return Mount(False)
    wrong = last.wrong if last is not None else None
    return Mount(True, wrong, read_only="ro" in entry.options, silent=seconds)


def mounted_at(path: str) -> mountinfo.MountEntry | None:
    """The topmost mount on a path by /proc/self/mountinfo, which asks no file system anything."""
    with open("/proc/self/mountinfo", "rb") as file:
        entries = (mountinfo.parse_line(line) for line in file.read().splitlines())
    found = [entry for entry in entries if entry is not None and entry.mount_point == path]
    return found[-1] if found else None


def facts_of(
    storage: StorageConfig,
    *,
    view: View,
    state: State,
    proc: str | None,
    history: History,
    now: float,
    settings: Settings,
    mount: Mount,
    peer_off: bool = False,
) -> Facts:
    """Everything together. now: of the history's clock. peer_off: an administrator says that no peer runs."""

    def loss(peer: int) -> Loss | None:
        known = history.loss(storage.resource, peer, now)
        return replace(known or Loss(), peer_off=True) if peer_off else known

    found = generation.from_proc_drbd(proc) if proc is not None else None
    resource = storage.resource
    return Facts(
        storage=storage.id,
        resource=resource,
        volume=storage.volume,
        generation=found,
        view=view,
        drbd=drbd_facts(
            state,
            resource,
            storage.volume,
            proc=proc_drbd.parse(proc) if proc is not None and found is Generation.V8_4 else None,
            loss=loss,
        ),
        config=settings.resources.get(resource) if settings.resources is not None else None,
        fence_handler=settings.fence_handler(resource),
        mount=mount,
        o2cb=settings.timeouts,
        own_handler=settings.own_handler(resource),
        corosync=settings.corosync,
        guard=settings.guard,
        other_hosts=settings.other_hosts(resource),
    )


def gather(storage: StorageConfig) -> Facts:
    """One look at everything, in at most some seconds, whatever hangs: what did not answer is not known.

    It knows nothing of how a lost peer was lost, which only the monitor sees.
    """
    helpers = [Helper(work) for work in (ask_state, ask_settings, ask_mount)]
    try:
        for helper, question in zip(helpers, (None, None, as_wire(storage)), strict=True):
            helper.ask(question)
        deadline = time.monotonic() + _PATIENCE
        answers = [helper.wait(deadline - time.monotonic()) for helper in helpers]
    finally:
        for helper in helpers:
            helper.close()
    state, settings, mount = answers
    now, proc = (state or {}).get("now"), (state or {}).get("proc")
    parsed = empty_state() if state is not None and proc is None else parse_now(now or "")
    return facts_of(
        storage,
        view=View(complete=parsed.complete, age=0.0 if parsed.complete else None),
        state=parsed,
        proc=proc,
        history=History(),
        now=0.0,
        settings=settings_of(settings or {}),
        mount=probe_of(mount).mount if mount is not None else silent_mount(storage.path, _PATIENCE),
    )


def empty_state() -> State:
    """Without DRBD's module there is nothing, and that is all there is to know."""
    return State(complete=True)


def as_wire(storage: StorageConfig) -> dict[str, object]:
    """The storage as the `storage` object of a request."""
    return {
        "id": storage.id,
        "path": storage.path,
        "resource": storage.resource,
        "volume": storage.volume,
        "uuid": storage.uuid,
    }


def _output(argv: list[str]) -> str | None:
    try:
        return command.run(argv, timeout=_TOOL_SECONDS).stdout
    except Error:
        return None


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def _registered() -> dict[str, str] | None:
    """The values of the o2cb cluster in the kernel, of which there is one at most; None without it."""
    try:
        names = os.listdir(o2cb.CONFIGFS)
    except OSError:
        return None
    if not names:
        return None
    contents = ((path, _text(f"{o2cb.CONFIGFS}/{names[0]}/{path}")) for path in o2cb.registered_files())
    return {path: content for path, content in contents if content is not None}
