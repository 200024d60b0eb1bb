"""What would take back what a plan has done, as commands for people to look at. Nothing here runs them, or does I/O.

Only what the journal says was begun is in it, in the reverse order. What another storage may use as well is not removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pvedrbdstor.ocfs2 import o2cb
from pvedrbdstor.setup import paths
from pvedrbdstor.setup.journal import Journal
from pvedrbdstor.setup.plan import Plan
from pvedrbdstor.setup.steps import Kind, Step

_SHARED = (o2cb.CLUSTER_CONF, o2cb.DEFAULTS_FILE)
_OTHERS = (paths.FIREWALL, paths.LVM_CONF)


@dataclass(frozen=True, slots=True)
class Act:
    """words: the command; empty where people have to look, and to decide."""

    node: str
    words: tuple[str, ...]
    why: str


def warning(plan: Plan, journal: Journal) -> str | None:
    """What has to be known before: whether the storage may be in use."""
    if any(step.kind is Kind.ENTRY and step.id in (*journal.done, journal.doing) for step in plan.steps):
        storage = plan.answers.storage
        return f"Storage {storage} is in Proxmox, or may be: all that guests have on it would be lost. Look at 'pvesm list {storage}' first."
    return None


def acts(plan: Plan, journal: Journal) -> list[Act]:
    """In the order in which they are to be taken: from above DRBD downwards."""
    begun = [step for step in plan.steps if step.id in (*journal.done, journal.doing)]
    return [act for step in reversed(begun) for act in _of(plan, step)]


def _of(plan: Plan, step: Step) -> Iterator[Act]:
    about, node, storage = step.about, step.node, plan.answers.storage
    match step.kind:
        case Kind.MOUNT:
            yield Act(
                node, ("pvedrbdstor", "mirror", "down", storage), "take the storage down; it refuses while it is in use"
            )
        case Kind.ENTRY:
            yield Act(
                node,
                ("pvesm", "remove", storage),
                "take it out of storage.cfg, once no guest has a volume on it: 'pvesm list'",
            )
        case Kind.UP:
            yield Act(node, ("drbdadm", "down", about["resource"]), "take DRBD's resource down")
        case Kind.METADATA:
            why = f"destroy DRBD's metadata on {about['device']}, and by that the mirror's whole content"
            yield Act(node, ("drbdadm", "wipe-md", about["resource"]), why)
        case Kind.LOGICAL_VOLUME:
            yield Act(node, ("lvremove", f"{about['group']}/{about['volume']}"), "it asks before")
        case Kind.VOLUME_GROUP:
            why = "it must have no volume any more: if 'lvs' shows another one in it, leave it, and the physical volume"
            yield Act(node, ("vgremove", about["group"]), why)
        case Kind.PHYSICAL_VOLUME:
            why = f"look first with 'lsblk -o NAME,SIZE,SERIAL,WWN' whether {about['device']} is still the same disk{_known(plan, node)}"
            yield Act(node, ("pvremove", about["device"]), why)
        case Kind.WIPE:
            why = f"what was on {about['device']} is gone; what wipefs has overwritten is in /root/wipefs-*.bak, see wipefs(8)"
            yield Act(node, (), why)
        case Kind.FILE:
            for file in step.files:
                yield _file(node, file.path)
        case _:
            pass


def _file(node: str, path: str) -> Act:
    if path in _OTHERS:
        return Act(
            node,
            (),
            f"take out of {path} the lines that the plan has put in, and nothing else: it is not this setup's alone",
        )
    if path in _SHARED:
        return Act(
            node,
            (),
            f"leave {path} where another storage on OCFS2 uses it ('pvesm status', 'mounted.ocfs2 -d'); else remove it",
        )
    return Act(node, ("rm", path), "written by this plan alone")


def _known(plan: Plan, node: str) -> str:
    identity = next((device.identity for device in plan.devices if device.node == node), None)
    return "" if identity is None else f" ({identity})"
