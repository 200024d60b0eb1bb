"""Which storages of storage.cfg are to be watched on this node."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import BadConfig
from pvedrbdstor.pve import storage_cfg

log = logging.getLogger(__name__)


def read_text(path: str) -> Callable[[object], dict[str, str]]:
    """Work of a Helper: pmxcfs is a FUSE file system, which may hang like any other."""

    def read(_question: object) -> dict[str, str]:
        with open(path, encoding="utf-8", errors="replace") as file:
            return {"text": file.read()}

    return read


def watched(text: str, node: str) -> dict[str, StorageConfig]:
    """By id: the storages that may be used on this node. What is not fit for use is logged and left out."""
    found = {}
    for storage_id in storage_cfg.storage_ids(text):
        try:
            storage = storage_cfg.find_storage(text, storage_id)
        except BadConfig as error:
            log.warning("%s", error)
            continue
        if not storage.disabled and (not storage.nodes or node in storage.nodes):
            found[storage_id] = storage.config
    return found
