"""A `dir` storage becomes ours, and ours a `dir` storage: what allows it, and the change, made by Proxmox's own code.

The file format belongs to Proxmox, and so does the lock: storage.cfg is read and written by its Perl modules
(PVE::Storage::DRBDOCFS2::Retype), never from here. Nothing on the storage itself is touched either way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import BadConfig, CommandFailed, TypeStays
from pvedrbdstor.pve.section_config import Section, is_true, parse
from pvedrbdstor.pve.storage_cfg import FOLDER_TYPE, STORAGE_TYPE, config_of, is_for

PERL = ["perl", "-T"]
_MODULE = "PVE::Storage::DRBDOCFS2::Retype"
_SECONDS = 90  # Proxmox waits 10 s for the lock and lets it be held for 60
_NAMED = 5  # of a longer list, in a message


@dataclass(frozen=True)
class Change:
    """A section before and after, as Proxmox writes it; the options that are dropped; the file's digest when looked at."""

    before: str
    after: str
    dropped: tuple[str, ...]
    digest: str | None


def section_to_change(text: str, storage_id: str, node: str, *, to: str) -> Section | None:
    """The section of storage.cfg that is to become of type ``to``; None when it is already.

    Raises BadConfig where there is no such storage of the other type, or it is not for this node; TypeStays where its
    options forbid it.
    """
    section = parse(text).get(storage_id)
    if section is None:
        raise BadConfig(storage=storage_id, detail="there is no such storage. 'pvesm status' lists them")
    if section.type == to:
        return None
    if section.type not in (FOLDER_TYPE, STORAGE_TYPE):
        raise BadConfig(
            storage=storage_id,
            detail=f"it is of type '{section.type}'. Only a '{FOLDER_TYPE}' storage can become '{STORAGE_TYPE}', and back",
        )
    if not is_for(section, node):
        raise BadConfig(
            storage=storage_id,
            detail=f"it is not for node '{node}'. Run this on one of: {section.properties.get('nodes')}",
        )
    if to == STORAGE_TYPE and is_true(section.properties.get("snapshot-as-volume-chain")):
        raise TypeStays(
            storage=storage_id,
            type=section.type,
            cause="it has the option snapshot-as-volume-chain, whose snapshots are chains of qcow2 files that only Proxmox "
            "knows how to handle",
            remedy="Delete all snapshots of guests with disks on it; then remove the storage's entry and add it again without "
            f"that option ('pvesm remove {storage_id}' forgets the entry and deletes nothing)",
        )
    return section


def config_as_ours(section: Section, resource: str, volume: int) -> StorageConfig:
    """What a `dir` section is to the backend once it lies on that DRBD volume. Raises BadConfig."""
    mirror = {"drbdocfs2-resource": resource, "drbdocfs2-volume": str(volume)}
    return config_of(Section(STORAGE_TYPE, section.id, {**section.properties, **mirror}))


def options_as_ours(config: StorageConfig, uuid: str) -> dict[str, str]:
    """The options that name the mirror."""
    return {
        "drbdocfs2-resource": config.resource,
        "drbdocfs2-volume": str(config.volume),
        "drbdocfs2-uuid": uuid,
    }


def options_as_folder(section: Section) -> dict[str, str]:
    """The options that a `dir` storage on a shared mount needs: without `shared` Proxmox copies disks at a migration,
    without `is_mountpoint` it writes to the empty folder while nothing is mounted."""
    needed = {"shared": "1"}
    if "is_mountpoint" not in section.properties:
        needed["is_mountpoint"] = "yes"
    return needed


def refuse_adoption(storage_id: str, survey: Mapping[str, object]) -> None:
    """Raise TypeStays where the storage holds what our type does not know. ``survey``: the answer of `survey`."""
    if chains := _names(survey, "chains"):
        raise TypeStays(
            storage=storage_id,
            type=FOLDER_TYPE,
            cause=f"it holds snapshots that are chains of qcow2 files ({_shown(chains)}), which '{STORAGE_TYPE}' does not know",
            remedy="Delete those snapshots first ('qm delsnapshot'), or move the disks to another storage and back",
        )
    if subvolumes := _names(survey, "subvolumes"):
        raise TypeStays(
            storage=storage_id,
            type=FOLDER_TYPE,
            cause=f"it holds containers that are folders ({_shown(subvolumes)}), which '{STORAGE_TYPE}' does not know",
            remedy="Move them to a raw image: 'pct move-volume' to another storage and back with a size",
        )


def refuse_release(storage_id: str, survey: Mapping[str, object]) -> None:
    """Raise TypeStays where a `dir` storage would lose what the storage holds. ``survey``: the answer of `survey`."""
    if snapshots := _names(survey, "snapshots"):
        raise TypeStays(
            storage=storage_id,
            type=STORAGE_TYPE,
            cause=f"raw images on it have snapshots, which a '{FOLDER_TYPE}' storage does not know ({_shown(snapshots)})",
            remedy="Delete them first, through Proxmox where a guest has them ('qm delsnapshot', 'pct delsnapshot'), else with "
            f"'pvedrbdstor volume snapshot delete {storage_id}:IMAGE SNAPSHOT'",
        )
    if survey.get("interrupted"):
        raise TypeStays(
            storage=storage_id,
            type=STORAGE_TYPE,
            cause="an operation on it was interrupted and is not finished or undone yet",
            remedy=f"Run 'pvedrbdstor volume recover {storage_id}' first",
        )


def change_type(section: Section, to: str, options: Mapping[str, str], *, digest: str | None = None) -> Change:
    """Have Proxmox change the type of a storage, or, without a digest, say what that would be.

    With the digest of an earlier answer it is done, unless storage.cfg has changed since. Raises BadConfig with
    Proxmox's own words, CommandTimeout.
    """
    request: dict[str, object] = {"storage": section.id, "from": section.type, "to": to, "set": dict(options)}
    if digest is not None:
        request |= {"apply": True, "digest": digest}
    program = f"{_MODULE}::main($ARGV[0])"
    try:
        answer = command.run([*PERL, f"-M{_MODULE}", "-e", program, json.dumps(request)], timeout=_SECONDS)
    except CommandFailed as error:
        said = str(error.fields["output"]).strip().splitlines()[-1]
        raise BadConfig(
            storage=section.id, detail=f"nothing was changed, Proxmox refuses: {said.rstrip('.')}"
        ) from error
    found = json.loads(answer.stdout)
    return Change(found["before"], found["after"], tuple(found["dropped"]), found["digest"])


def _names(survey: Mapping[str, object], key: str) -> list[str]:
    found = survey.get(key)
    return [str(name) for name in found] if isinstance(found, list) else []


def _shown(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return "; ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
