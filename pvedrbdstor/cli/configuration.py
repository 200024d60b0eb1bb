"""The storages of this node by storage.cfg, for whoever must not hang with /etc/pve."""

from __future__ import annotations

from pvedrbdstor.cli import output
from pvedrbdstor.cli.session import Session
from pvedrbdstor.doctor import storage_file
from pvedrbdstor.errors import BadConfig
from pvedrbdstor.pve import storage_cfg
from pvedrbdstor.pve.storage_cfg import Storage


def ids(storage: Storage) -> list[str]:
    """Its own first."""
    return [storage.config.id, *sorted(storage.aliases - {storage.config.id})]


def chosen(session: Session, names: tuple[str, ...]) -> tuple[list[Storage], dict[str, str]]:
    """Those named, or all that are usable on this node; and of those whose section is not right, why. A disabled one is passed over.

    Raises BadConfig for one that was named and is not usable, and where storage.cfg does not answer.
    """
    text = storage_file.read(session.config_path, session.nodes_path)
    if names:
        return [_usable(text, name, session.node) for name in dict.fromkeys(names)], {}
    found, unusable = [], {}
    for name in storage_cfg.storage_ids_on(text, session.node):
        try:
            storage = storage_cfg.find_storage(text, name)
        except BadConfig as error:
            unusable[name] = error.message
            continue
        if storage.disabled:
            output.say(f"passed over: storage '{name}' is disabled.")
        else:
            found.append(storage)
    return found, unusable


def _usable(text: str, name: str, node: str) -> Storage:
    storage = storage_cfg.find_storage(text, name)
    storage.check_usable_on(node)
    return storage
