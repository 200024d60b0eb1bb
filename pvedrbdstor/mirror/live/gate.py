"""What the live view means for a call: `status` is answered from it, and what cannot succeed is refused before it hangs."""

from __future__ import annotations

import os
import socket

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import NotAdmitted, NotUsable
from pvedrbdstor.mirror.finding import Kind
from pvedrbdstor.mirror.live.view import View, read_view

_IMPATIENT = frozenset(
    (
        "activate_storage",
        "activate_volume",
        "get_identity",
        "list_images",
        "space",
        "volume_rollback_is_possible",
        "volume_size_info",
        "volume_snapshot",
        "volume_snapshot_info",
    )
)
"""Calls that a daemon's loop, a person or a paused guest waits for. The rest is work that may wait for its deadline: a
freeze by fencing is over in half a minute."""


def status(config: StorageConfig) -> dict[str, object] | None:
    """The answer of the method `status`; None without a fresh view of this storage, which has to be looked at then.

    reason: why it is inactive, None when it is active. All sizes are zero when it is inactive.
    """
    view = read_view(config.id)
    if not view.fresh or not view.describes(config):
        return None
    verdict = view.verdict
    if not verdict.active:
        reason = f"{verdict.kind.value}: {verdict.cause}"
        return {"total": 0, "avail": 0, "used": 0, "active": False, "reason": reason}
    if view.sizes is None:
        return None
    return {**view.sizes, "active": True, "reason": None}


def refuse_hopeless(config: StorageConfig, method: str) -> None:
    """Raise NotUsable where the call would hang on frozen I/O or find no good copy.

    Without a fresh view nothing is refused here: the call itself will find out, within its deadline. So it does where the
    view has not seen the mount yet, which may have been made a moment ago. Bringing the storage up is refused for frozen
    I/O alone: it is what helps against most of the rest.
    """
    if method not in _IMPATIENT:
        return
    view = read_view(config.id)
    if not view.fresh or not view.describes(config) or view.verdict.active:
        return
    frozen = Kind.SUSPENDED in view.verdict.kinds
    if frozen or (method == "activate_volume" and not view.verdict.merely_down):
        raise _not_usable(view)


def refuse_newcomer(config: StorageConfig, volume: object, inode: int) -> None:
    """Raise NotAdmitted for an image of a guest that did not run here when new guests ceased to be admitted.

    In a split a guest that comes from the other node, or was stopped here meanwhile, would find other data than it left.
    A view that has grown old is believed as far as it refused: a split does not go away by itself. One that only has not
    seen the mount yet is not: the volume was found there.
    """
    view = read_view(config.id)
    if view.last is None or view.last.admits or view.last.merely_down or not view.describes(config):
        return
    vmid = int(str(volume).split("/")[-2])
    if view.in_use.covers(vmid, inode):
        return
    raise NotAdmitted(
        storage=config.id,
        verdict=view.last.kind.value,
        node=_node(),
        volume=volume,
        cause=view.last.cause,
        remedy=view.last.remedy.rstrip("."),
    )


def inode_of(fd: int) -> int:
    """What an open image is known by in the view."""
    return os.fstat(fd).st_ino


def _not_usable(view: View) -> NotUsable:
    verdict = view.verdict
    return NotUsable(
        storage=view.storage,
        verdict=verdict.kind.value,
        node=_node(),
        cause=verdict.cause,
        remedy=verdict.remedy.rstrip("."),
    )


def _node() -> str:
    return socket.gethostname().partition(".")[0]
