"""The text of storage.cfg, read by a process of its own: doctor and report are run when /etc/pve hangs."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pvedrbdstor.doctor.answers import Answers, text_of
from pvedrbdstor.errors import BadConfig
from pvedrbdstor.mirror.helper import Helper

SECONDS = 5.0
"""In which it has to be read."""
SOURCE = "storage_cfg"
"""Its name among a node's sources, where it could not be read."""
SEE = "See that the cluster file system is up: 'systemctl status pve-cluster'"


def read(path: str, nodes_path: str) -> str:
    """The text of storage.cfg; empty where Proxmox has none. nodes_path: the folder `nodes` beside it, without which the cluster file
    system is not there at all. Raises BadConfig for that, and where nothing is told within SECONDS."""
    helper, told = Helper(_ask), Answers()
    helper.ask({"path": path, "nodes": nodes_path})
    told.merge(helper.wait(SECONDS), ("text", "nodes"), f"{path}: it did not answer within {SECONDS:.0f} s")
    helper.close()
    for why in told.unread.values():
        raise BadConfig(storage="*", detail=f"storage.cfg cannot be read ({why}). {SEE}")
    text = told.values["text"]
    if text is None and told.values["nodes"] is not True:
        raise BadConfig(storage="*", detail=f"{path} and {nodes_path} are not there. {SEE}")
    return str(text or "")


def _ask(question: Mapping[str, str]) -> dict[str, object]:
    """As work of a Helper."""
    told = Answers()
    told.take("text", lambda: text_of(question["path"]))
    told.take("nodes", lambda: os.path.isdir(question["nodes"]))
    return told.as_json()
