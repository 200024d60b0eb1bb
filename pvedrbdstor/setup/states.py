"""What is true on this node of a step: it is done, it may be taken, what is missing after it. Changes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping

from pvedrbdstor import command
from pvedrbdstor.drbd import devices
from pvedrbdstor.drbd.events2 import State
from pvedrbdstor.errors import Error
from pvedrbdstor.mirror.bringup.gather import drbd_state
from pvedrbdstor.mirror.gather import mounted_at
from pvedrbdstor.mirror.status import read_superblock
from pvedrbdstor.pve import section_config
from pvedrbdstor.setup import disks, files
from pvedrbdstor.setup.paths import STORAGE_CFG
from pvedrbdstor.setup.steps import Kind, NotNow, Step

_SECONDS = 20.0
_DRBD = "drbd"  # wipefs's word for DRBD's metadata


def is_done(step: Step) -> bool:
    """Whether there is nothing to do. Of what destroys something only where this very plan's result is there."""
    probe = _DONE.get(step.kind)
    return probe is not None and probe(step)


def allow(step: Step, again: bool) -> None:
    """Raise NotNow where the step would touch what it must not. again: it was begun before, so that half of it may be there."""
    look = _ALLOW.get(step.kind)
    if look is not None:
        look(step, again)


def missing(step: Step) -> str | None:
    """Why the step has not come to what it should, after its programs have ended well; None where it has."""
    if step.kind not in _DONE or step.kind is Kind.FILE or is_done(step):
        return None
    return _MISSING.get(step.kind, "its programs ended well, and it is not done. Look at 'dmesg'.").format(**step.about)


def verdict(said: str) -> tuple[str, str]:
    """The verdict of `mirror status --json`, and what it says in words."""
    try:
        found = json.loads(said)["verdict"]
        text = ". ".join(str(found[key]).rstrip(".") for key in ("cause", "remedy") if found.get(key))
        return str(found["kind"]), f"{found['kind']}: {text}." if text else str(found["kind"])
    except (ValueError, KeyError, TypeError):
        return "not known", "not known: 'pvedrbdstor mirror status' did not answer in a form known here."


_MISSING = {
    Kind.CONNECT: "the nodes do not find each other. Does the other one have DRBD up ('cat /proc/drbd'), can its address be reached "
    "('ping'), and does no firewall keep DRBD's port shut?",
    Kind.UP: "resource {resource} has no disk on this node. Look at 'dmesg'.",
    Kind.FILE_SYSTEM: "{device} does not hold the file system that was just made. Look at 'dmesg'.",
    Kind.MOUNT: "nothing of DRBD's is mounted on {path}. Look at 'dmesg'.",
}

# --- done? -------------------------------------------------------------------------------------------------------


def _modules(step: Step) -> bool:
    return all(os.path.isdir(f"/sys/module/{name}") for name in step.about["modules"].split())


def _written(step: Step) -> bool:
    """The programs of such a step only read, and are run each time."""
    return not step.commands and all(files.content(file.path) == file.content for file in step.files)


def _up(step: Step) -> bool:
    return _disk(drbd_state(step.about["resource"]), step.about["resource"]) not in (None, "Diskless", "Failed")


def _connected(step: Step) -> bool:
    found = [each for each in drbd_state(step.about["resource"]).connections if each.resource == step.about["resource"]]
    return bool(found) and all(each.state == "Connected" for each in found)


def _up_to_date(step: Step) -> bool:
    return _disk(drbd_state(step.about["resource"]), step.about["resource"]) == "UpToDate"


def _primary(step: Step) -> bool:
    found = drbd_state(step.about["resource"]).resources
    return any(each.name == step.about["resource"] and each.role == "Primary" for each in found)


def _made(step: Step) -> bool:
    try:
        return read_superblock(int(step.about["minor"])).uuid == step.about["uuid"]
    except Error:  # none there, or it cannot be read
        return False


def _entered(step: Step) -> bool:
    section = _entry(step)
    return section is not None and section.get("drbdocfs2-uuid") == step.about["uuid"]


def _mounted(step: Step) -> bool:
    entry = mounted_at(step.about["path"])
    return entry is not None and entry.fs_type == "ocfs2" and entry.device == (devices.MAJOR, int(step.about["minor"]))


def _group(step: Step) -> bool:
    """The group, on this very device: one of the same name elsewhere is another."""
    return _lvm("pvs", "vg_name", step.about["device"]) == step.about["group"]


def _volume(step: Step) -> bool:
    return _lvm("lvs", "lv_name", f"{step.about['group']}/{step.about['volume']}") == step.about["volume"]


_DONE: Mapping[Kind, Callable[[Step], bool]] = {
    Kind.MODULES: _modules,
    Kind.FILE: _written,
    Kind.VOLUME_GROUP: _group,
    Kind.LOGICAL_VOLUME: _volume,
    Kind.UP: _up,
    Kind.CONNECT: _connected,
    Kind.FIRST_COPY: _up_to_date,
    Kind.PRIMARY: _primary,
    Kind.FILE_SYSTEM: _made,
    Kind.ENTRY: _entered,
    Kind.MOUNT: _mounted,
}

# --- allowed? ----------------------------------------------------------------------------------------------------


def _wipe(step: Step, again: bool) -> None:
    """What was shown may go, and nothing else."""
    _unused(step)
    here = set(disks.signatures(step.about["device"]))
    shown = {word.partition(" (on ")[0] for word in step.about["signatures"].split("\n")}
    if unknown := here - shown:
        raise NotNow(
            f"{step.about['device']} holds what it did not when the plan was made ({', '.join(sorted(unknown))}). Plan again."
        )


def _blank(step: Step, again: bool) -> None:
    """Nobody's, and empty, but for what this very step has left there when it was interrupted."""
    _unused(step)
    own = {Kind.METADATA: {_DRBD}, Kind.PHYSICAL_VOLUME: {"LVM2_member"}}[step.kind] if again else set()
    found = [word for word in disks.signatures(step.about["device"]) if word not in own]
    if found:
        raise NotNow(
            f"{step.about['device']} is not empty any more ({', '.join(found)}): nothing was done to it. Plan again."
        )


def _unused(step: Step) -> None:
    path = step.about["device"]
    if disks.is_claimed(path):
        raise NotNow(f"{path} is in use: nothing was done to it. 'lsblk {path}' shows by what.")
    wanted = step.about.get("size")
    if wanted is not None and disks.size(path) != int(wanted):
        raise NotNow(
            f"{path} has another size than when the plan was made: it is another device. Nothing was done to it. Plan again."
        )


def _first(step: Step, again: bool) -> None:
    """Two copies that nobody has ever written to: else one of them would be thrown away."""
    name = step.about["resource"]
    state = drbd_state(name)
    own = _disk(state, name)
    others = [each.disk for each in state.peer_devices if each.resource == name]
    if own != "Inconsistent" or others != ["Inconsistent"]:
        told = f"{own or 'none'} here, {', '.join(other or 'none' for other in others) or 'none'} there"
        raise NotNow(f"the two copies are not both new ({told}): nothing was forced. Look at 'drbdadm status {name}'.")


def _no_file_system(step: Step, again: bool) -> None:
    name, device = step.about["resource"], step.about["device"]
    state = drbd_state(name)
    if _disk(state, name) != "UpToDate" or state.minor_of(name, 0) != int(step.about["minor"]):
        raise NotNow(f"{device} is not resource {name} with good data. Look at 'drbdadm status {name}'.")
    if disks.is_claimed(device):
        raise NotNow(f"{device} is in use: nothing was done to it. Look at 'grep drbd /proc/mounts'.")
    found = [word for word in disks.signatures(device) if not (again and word.startswith("ocfs2"))]
    if found:
        raise NotNow(f"{device} is not empty ({', '.join(found)}): nothing was done to it.")


def _no_entry(step: Step, again: bool) -> None:
    if _entry(step) is not None:
        raise NotNow(
            f"there is a storage '{step.about['storage']}' by now, of other properties. Look at {STORAGE_CFG}."
        )


_ALLOW: Mapping[Kind, Callable[[Step, bool], None]] = {
    Kind.WIPE: _wipe,
    Kind.PHYSICAL_VOLUME: _blank,
    Kind.METADATA: _blank,
    Kind.FIRST_COPY: _first,
    Kind.FILE_SYSTEM: _no_file_system,
    Kind.ENTRY: _no_entry,
}

# --- small ones --------------------------------------------------------------------------------------------------


def _disk(state: State, resource: str) -> str | None:
    return next((each.disk for each in state.devices if each.resource == resource), None)


def _entry(step: Step) -> Mapping[str, str] | None:
    try:
        with open(STORAGE_CFG, encoding="utf-8", errors="replace") as file:
            found = section_config.parse(file.read()).get(step.about["storage"])
    except FileNotFoundError:
        return None
    return None if found is None else found.properties


def _lvm(program: str, column: str, name: str) -> str:
    return command.run([program, "--noheadings", "-o", column, name], timeout=_SECONDS, check=False).stdout.strip()
