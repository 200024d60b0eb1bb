"""Facts out of the captures of real clusters, for the tests of the verdict."""

from __future__ import annotations

from dataclasses import replace

from pvedrbdstor.drbd import config, generation, proc_drbd
from pvedrbdstor.drbd.history import Loss
from pvedrbdstor.mirror.facts import Facts, Mount, View, drbd_facts
from pvedrbdstor.ocfs2 import o2cb
from tests.drbd.support import configfs_of, mount_options_of, output_of, state_of


def facts_of(name: str, lost: Loss | None = None, mount: Mount | None = None) -> Facts:
    """The facts of one node of one capture.

    lost: what a history would have told of the missing peer. mount: where the capture does not tell. The captures of 9
    hold neither the o2cb cluster nor `drbdadm dump`: these had the default timeouts and, where fenced, a handler. All of them had
    policies that settle a split brain unasked, which would hide everything else: here they have none.
    """
    proc_text = output_of(name, "cat /proc/drbd") or ""
    found = config.parse_show(output_of(name, "drbdsetup show") or "").get("r0")
    if found is not None:
        found = replace(found, nets=tuple(disconnecting(net) for net in found.nets))
    dump = output_of(name, "drbdadm dump")
    if dump is not None:
        handler = config.fence_peer_handler(dump, "r0") is not None
    else:
        handler = found is not None and found.fencing(0) == config.FENCED
    registered = configfs_of(name)
    timeouts = o2cb.parse_registered(registered).timeouts if registered else None
    return Facts(
        storage="ha",
        resource="r0",
        volume=0,
        generation=generation.from_proc_drbd(proc_text),
        view=View(complete=True),
        drbd=drbd_facts(state_of(name), "r0", 0, proc=proc_drbd.parse(proc_text), loss=lambda peer: lost),
        config=found,
        fence_handler=handler,
        mount=mount or mount_of(name),
        o2cb=o2cb.KERNEL_DEFAULTS if name.startswith("9/") else timeouts,
    )


def mount_of(name: str) -> Mount:
    options = mount_options_of(name)
    return Mount(None if options is None else bool(options), read_only=bool(options) and "ro" in (options or ()))


def disconnecting(net: config.NetConfig) -> config.NetConfig:
    """The same with a split brain left to the administrator."""
    return replace(
        net, **dict.fromkeys(("after_sb_0pri", "after_sb_1pri", "after_sb_2pri", "rr_conflict"), "disconnect")
    )
