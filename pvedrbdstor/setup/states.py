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
from pvedrbdstor.setup import disks, exact, files
from pvedrbdstor.setup.paths import STORAGE_CFG
from pvedrbdstor.setup.steps import Kind, NotNow, Step, printable

_SECONDS = 20.0
_DRBD, _PV, _OCFS2 = "drbd", "LVM2_member", "ocfs2"  # wipefs's words


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
    return not step.commands and all(files.is_written(file, step.about) for file in step.files)


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
    shown, device = step.about.get("exact"), step.about["device"]
    if shown is None:
        raise NotNow(f"the plan does not tell exactly what is on {device}: nothing was done to it. Plan again.")
    if not exact.same(shown, exact.record(device), again):
        words = printable(", ".join(disks.signatures(device))) or "nothing that wipefs knows"
        raise NotNow(
            f"{device} does not hold what it did when the plan was made (now: {words}): nothing was done to it. Plan again."
        )


def _blank(step: Step, again: bool) -> None:
    """Nobody's, and empty, but for what this very step has left there when it was interrupted."""
    _unused(step)
    _on_own_group(step)
    own = {Kind.METADATA: {_DRBD}, Kind.PHYSICAL_VOLUME: {_PV}}[step.kind] if again else set()
    found = [word for word in disks.signatures(step.about["device"]) if word not in own]
    if found:
        raise NotNow(
            f"{step.about['device']} is not empty any more ({printable(', '.join(found))}): nothing was done to it. Plan again."
        )
    if _PV in own:
        _in_no_group(step)


def _bare_volume(step: Step, again: bool) -> None:
    """The physical volume that was just made: nobody has put a group on it since."""
    _unused(step)
    path = step.about["device"]
    found = disks.signatures(path)
    if found != (_PV,):
        told = printable(", ".join(found)) or "nothing"
        raise NotNow(f"{path} is not the physical volume that was made (it holds: {told}): nothing was done to it.")
    _in_no_group(step)


def _in_no_group(step: Step) -> None:
    path = step.about["device"]
    if group := _lvm("pvs", "vg_name", path):
        raise NotNow(
            f"{path} is in the volume group {printable(group)} by now, which this plan has not made: nothing was done to it. "
            f"Look at 'pvs {path}'."
        )


def _own_group(step: Step, again: bool) -> None:
    """The volume group is the one on the plan's disk."""
    _on_own_group(step)
    volume = f"{step.about['group']}/{step.about['volume']}"
    if _volume(step):
        raise NotNow(
            f"there is a logical volume {volume} by now, which this plan has not made: nothing was done to it."
        )


def _on_own_group(step: Step) -> None:
    """disk, group: where the step is about a logical volume that this plan makes: the disk below, and its group."""
    disk, group = step.about.get("disk"), step.about.get("group")
    if disk is None or group is None:
        return
    _same_device(disk, step)
    if (found := _lvm("pvs", "vg_name", disk)) != group:
        raise NotNow(
            f"{disk} is in {printable(found) or 'no volume group'}, not in {group}: nothing was done. Look at 'pvs' and 'vgs'."
        )


def _same_device(path: str, step: Step) -> None:
    """Names move at a boot, or when a cable is pulled: right before a device is written to, what names it for good counts."""
    wanted = step.about.get("identity")
    if wanted is not None and (found := exact.identity(path)) != wanted:
        raise NotNow(
            f"{path} is another device than the one that the plan was made of ({printable(found or 'nothing names it')} in place of "
            f"{printable(wanted)}): nothing was done to it."
        )


def _unused(step: Step) -> None:
    path = step.about["device"]
    if "disk" not in step.about:
        _same_device(path, step)
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
    """DRBD's device, whole and seen on both sides, that nobody has and nothing names. again: mkfs itself may have begun one of the
    plan's UUID, which cannot be told from a whole one."""
    name, device = step.about["resource"], step.about["device"]
    state = drbd_state(name)
    if _disk(state, name) != "UpToDate" or state.minor_of(name, 0) != int(step.about["minor"]):
        raise NotNow(f"{device} is not resource {name} with good data. Look at 'drbdadm status {name}'.")
    _peer_is_secondary(state, name, device)
    if disks.is_claimed(device):
        raise NotNow(f"{device} is in use: nothing was done to it. Look at 'grep drbd /proc/mounts'.")
    _nothing_names(step)
    found = [word for word in disks.signatures(device) if not (again and word.startswith(_OCFS2))]
    if found:
        raise NotNow(f"{device} is not empty ({printable(', '.join(found))}): nothing was done to it.")
    if again and (others := [uuid for uuid in _ocfs2_uuids(device) if uuid != step.about["uuid"].upper()]):
        raise NotNow(
            f"{device} holds an OCFS2 file system ({printable(others[0]) or 'of no UUID'}) that this plan has not made: nothing was done "
            "to it."
        )


def _peer_is_secondary(state: State, name: str, device: str) -> None:
    """Else it may be mounted over there, which only the other node's kernel knows."""
    found = [(each.state, each.role) for each in state.connections if each.resource == name]
    if found != [("Connected", "Secondary")]:
        told = ", ".join(f"{each[0]}, {each[1] or 'role not known'}" for each in found) or "no connection"
        raise NotNow(
            f"{device} could be in use on the other node ({told}): nothing was done to it. Both have to be connected, and that one "
            f"Secondary: look at 'drbdadm status {name}' there, and at what is mounted."
        )


def _ocfs2_uuids(device: str) -> list[str]:
    """As OCFS2 writes them, without dashes. Raises NotNow where wipefs is not understood."""
    found: dict[str, dict[str, list[list[str]]]] = json.loads(exact.record(device))
    return [
        uuid.replace("-", "").upper()
        for part in found.values()
        for _, kind, uuid, _ in part["signatures"]
        if kind.startswith(_OCFS2)
    ]


def _nothing_names(step: Step) -> None:
    """Raise NotNow where storage.cfg has the file system or the resource, under whatever storage's name."""
    for storage, section in _sections().items():
        words = {value.upper() for value in section.properties.values()}
        if (
            step.about["uuid"].upper() in words
            or section.properties.get("drbdocfs2-resource") == step.about["resource"]
        ):
            raise NotNow(
                f"storage '{storage}' in {STORAGE_CFG} uses resource {step.about['resource']} or this file system already: nothing was "
                f"done to {step.about['device']}."
            )


def _no_entry(step: Step, again: bool) -> None:
    if _entry(step) is not None:
        raise NotNow(
            f"there is a storage '{step.about['storage']}' by now, of other properties. Look at {STORAGE_CFG}."
        )


_ALLOW: Mapping[Kind, Callable[[Step, bool], None]] = {
    Kind.WIPE: _wipe,
    Kind.PHYSICAL_VOLUME: _blank,
    Kind.VOLUME_GROUP: _bare_volume,
    Kind.LOGICAL_VOLUME: _own_group,
    Kind.METADATA: _blank,
    Kind.FIRST_COPY: _first,
    Kind.FILE_SYSTEM: _no_file_system,
    Kind.ENTRY: _no_entry,
}

# --- small ones --------------------------------------------------------------------------------------------------


def _disk(state: State, resource: str) -> str | None:
    return next((each.disk for each in state.devices if each.resource == resource), None)


def _entry(step: Step) -> Mapping[str, str] | None:
    found = _sections().get(step.about["storage"])
    return None if found is None else found.properties


def _sections() -> Mapping[str, section_config.Section]:
    try:
        with open(STORAGE_CFG, encoding="utf-8", errors="replace") as file:
            return section_config.parse(file.read())
    except FileNotFoundError:
        return {}


def _lvm(program: str, column: str, name: str) -> str:
    return command.run([program, "--noheadings", "-o", column, name], timeout=_SECONDS, check=False).stdout.strip()
