"""See both nodes at the same time: this one by itself, each other by `pvedrbdstor doctor --facts` through ssh."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence

from pvedrbdstor import command, nodes
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.doctor import sources
from pvedrbdstor.doctor.answers import reason_of
from pvedrbdstor.doctor.facts import UNKNOWN_NODE, BadFacts, Look, Node, from_json
from pvedrbdstor.drbd import commands
from pvedrbdstor.errors import Error
from pvedrbdstor.mirror.helper import Helper

PEER_SECONDS = 15.0
_GRACE = 1.0
_DUMP_SECONDS = 3.0
_LIMIT = 16 << 20


def look(
    node: str,
    configs: Sequence[StorageConfig],
    nodes_path: str,
    aliases: Mapping[str, Sequence[str]],
    *,
    local: bool = False,
) -> Look:
    """Everything, in PEER_SECONDS at most. local: leave the other nodes alone."""
    others, unknown = ((), {}) if local else peers(node, configs)
    asked = {other: Helper(_ask) for other in others}
    try:
        for other, helper in asked.items():
            helper.ask({"node": other, "storages": [config.id for config in configs]})
        deadline = time.monotonic() + PEER_SECONDS + _GRACE
        here = sources.gather(node, configs, nodes_path, aliases)
        answers = {
            other: _told(helper.wait(max(_GRACE, deadline - time.monotonic()))) for other, helper in asked.items()
        }
    finally:
        for helper in asked.values():
            helper.close()
    found = tuple(answer for answer in answers.values() if isinstance(answer, Node))
    silent = {**unknown, **{other: answer for other, answer in answers.items() if isinstance(answer, str)}}
    return Look(here, found, silent, tuple(configs))


def peers(node: str, configs: Sequence[StorageConfig]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The other nodes of the storages' resources, by DRBD's configuration; and where that does not tell, UNKNOWN_NODE with the reason."""
    if not configs:
        return (), {}
    try:
        dump = command.run(commands.dump(), timeout=_DUMP_SECONDS).stdout
    except Error as error:
        return (), {UNKNOWN_NODE: f"which it is could not be read: {reason_of(error)}"}
    found = (other for config in configs for other in nodes.other_nodes(dump, config.resource, node))
    return tuple(dict.fromkeys(found)), {}


def _ask(question: Mapping[str, object]) -> dict[str, object]:
    """As work of a Helper: what a node prints, with this node's clock around it, or why it printed nothing."""
    node, storages = str(question["node"]), question["storages"]
    assert isinstance(storages, list)
    words = ["doctor", "--facts", *map(str, storages)]
    asked = time.time()
    try:
        text = command.run(nodes.line(node, words, alive=9), timeout=PEER_SECONDS, limit=_LIMIT).stdout
    except Error as error:
        return {"why": nodes.why_not(error)}
    return {"text": text, "asked": asked, "heard": time.time()}


def _told(answer: object) -> Node | str:
    """What a node has told, or why it told nothing, one clause."""
    found = answer if isinstance(answer, dict) else {}
    text, asked, heard = found.get("text"), found.get("asked"), found.get("heard")
    if not (isinstance(text, str) and isinstance(asked, float) and isinstance(heard, float)):
        return str(found.get("why") or found.get("error") or "it did not answer in time")
    try:
        return from_json(json.loads(text), asked=asked, heard=heard)
    except (ValueError, RecursionError):
        return "it printed no JSON: is pvedrbdstor of the same version there?"
    except BadFacts as error:
        return str(error)
