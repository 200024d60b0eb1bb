"""What /etc/pve/storage.cfg says of the `drbdocfs2` storages, and which other storages lie on the same path; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import BadConfig
from pvedrbdstor.pve.section_config import Section, is_true, parse, split_list

STORAGE_TYPE = "drbdocfs2"
FOLDER_TYPE = "dir"  # what a storage on a hand-made mount is to Proxmox
_NUMBER = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True)
class Storage:
    """One `drbdocfs2` storage: what the backend needs, and what Proxmox says of its use.

    content: what it may hold (images, rootdir, ...). nodes: where it may be used, empty meaning everywhere. aliases:
    all storage ids, this one's too, under which guests may name a volume on the same path.
    """

    config: StorageConfig
    content: frozenset[str]
    nodes: frozenset[str]
    disabled: bool
    aliases: frozenset[str]

    def check_usable_on(self, node: str) -> None:
        """Raise BadConfig where PVE::Storage::storage_check_enabled would die."""
        if self.disabled:
            raise BadConfig(
                storage=self.config.id,
                detail=f"it is disabled. Enable it first: 'pvesm set {self.config.id} --disable 0'",
            )
        if self.nodes and node not in self.nodes:
            where = ", ".join(sorted(self.nodes))
            raise BadConfig(storage=self.config.id, detail=f"it is not for node '{node}'. Work on one of: {where}")


def storage_ids(text: str) -> list[str]:
    """The ids of all `drbdocfs2` storages, in the file's order."""
    return [section.id for section in parse(text).values() if section.type == STORAGE_TYPE]


def storage_ids_on(text: str, node: str) -> list[str]:
    """The ids of the `drbdocfs2` storages that are configured for a node, also of disabled ones."""
    return [section.id for section in parse(text).values() if section.type == STORAGE_TYPE and is_for(section, node)]


def is_for(section: Section, node: str) -> bool:
    """Whether a section's `nodes` includes the node; without that property it is for all."""
    nodes = split_list(section.properties.get("nodes", ""))
    return not nodes or node in nodes


def find_storage(text: str, storage_id: str) -> Storage:
    """The `drbdocfs2` storage of that id. Raises BadConfig when there is none, or when it is not usable as it stands."""
    sections = parse(text)
    section = sections.get(storage_id)
    if section is None:
        known = ", ".join(storage_ids(text)) or "none"
        raise BadConfig(
            storage=storage_id, detail=f"there is no such storage. Storages of type {STORAGE_TYPE}: {known}"
        )
    if section.type != STORAGE_TYPE:
        raise BadConfig(
            storage=storage_id, detail=f"it is of type '{section.type}', not {STORAGE_TYPE}. Use 'pvesm' for it"
        )
    config = config_of(section)
    return Storage(
        config=config,
        content=frozenset(split_list(section.properties.get("content", "images,rootdir"))),
        nodes=frozenset(split_list(section.properties.get("nodes", ""))),
        disabled=is_true(section.properties.get("disable")),
        aliases=frozenset({storage_id} | _same_path(sections, config.path)),
    )


def config_of(section: Section) -> StorageConfig:
    """The section as the backend's value; goes through the same check as what comes over the wire. Raises BadConfig."""
    properties = section.properties
    for key in ("path", "drbdocfs2-resource"):
        if not properties.get(key):
            raise BadConfig(storage=section.id, detail=f"the property '{key}' is missing in storage.cfg")
    volume = properties.get("drbdocfs2-volume", "0")
    return StorageConfig.from_wire(
        {
            "id": section.id,
            "path": properties["path"],
            "resource": properties["drbdocfs2-resource"],
            "volume": int(volume) if _NUMBER.fullmatch(volume) else -1,
            "uuid": properties.get("drbdocfs2-uuid"),
            "images_dir": _content_dirs(properties).get("images"),
            "preallocation": properties.get("preallocation"),
        }
    )


def _content_dirs(properties: Mapping[str, str]) -> dict[str, str]:
    """The property `content-dirs`: content type to folder below the path."""
    pairs = (word.partition("=") for word in split_list(properties.get("content-dirs", "")))
    return {content: folder for content, equals, folder in pairs if equals}


def _same_path(sections: Mapping[str, Section], path: str) -> set[str]:
    """Ids of the storages on ``path``: a former `dir` storage may still be there, and guests may still name it."""
    return {section.id for section in sections.values() if _plain(section.properties.get("path", "")) == path}


def _plain(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part)
