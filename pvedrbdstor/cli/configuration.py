"""The storages of this node by storage.cfg, for whoever must not hang with /etc/pve: doctor and report are run when it does."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pvedrbdstor.cli import output
from pvedrbdstor.cli.session import Session
from pvedrbdstor.doctor.answers import Answers, text_of
from pvedrbdstor.errors import BadConfig
from pvedrbdstor.mirror.helper import Helper
from pvedrbdstor.pve import storage_cfg
from pvedrbdstor.pve.storage_cfg import Storage

SECONDS = 5.0
"""In which it has to be read."""
_SEE = "See that the cluster file system is up: 'systemctl status pve-cluster'"


def read(path: str, nodes_path: str) -> str:
    """The text of storage.cfg; empty where Proxmox has none. nodes_path: the folder `nodes` beside it, without which the cluster file
    system is not there at all. Raises BadConfig for that, and where nothing is told within SECONDS."""
    helper, told = Helper(_ask), Answers()
    helper.ask({"path": path, "nodes": nodes_path})
    told.merge(helper.wait(SECONDS), ("text", "nodes"), f"{path}: it did not answer within {SECONDS:.0f} s")
    helper.close()
    for why in told.unread.values():
        raise BadConfig(storage="*", detail=f"storage.cfg cannot be read ({why}). {_SEE}")
    text = told.values["text"]
    if text is None and told.values["nodes"] is not True:
        raise BadConfig(storage="*", detail=f"{path} and {nodes_path} are not there. {_SEE}")
    return str(text or "")


def _ask(question: Mapping[str, str]) -> dict[str, object]:
    """As work of a Helper."""
    told = Answers()
    told.take("text", lambda: text_of(question["path"]))
    told.take("nodes", lambda: os.path.isdir(question["nodes"]))
    return told.as_json()


def ids(storage: Storage) -> list[str]:
    """Its own first."""
    return [storage.config.id, *sorted(storage.aliases - {storage.config.id})]


def chosen(session: Session, names: tuple[str, ...]) -> tuple[list[Storage], dict[str, str]]:
    """Those named, or all that are usable on this node; and of those whose section is not right, why. A disabled one is passed over.

    Raises BadConfig for one that was named and is not usable, and where storage.cfg does not answer.
    """
    text = read(session.config_path, session.nodes_path)
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
