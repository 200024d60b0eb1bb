"""The report of both nodes: the doctor's look, and each node's own texts, the other's through ssh."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace

from pvedrbdstor import command, nodes
from pvedrbdstor.doctor import words
from pvedrbdstor.doctor.checks import examine, firewall
from pvedrbdstor.doctor.facts import Look, Node, as_json
from pvedrbdstor.errors import Error
from pvedrbdstor.mirror.helper import Helper

PEER_SECONDS = 40.0
"""From the beginning of the report on."""
_LIMIT = 64 << 20
_TEXTS_MAX = 256
_NAME_MAX = 200


def of_other_nodes(names: tuple[str, ...]) -> dict[str, Helper]:
    """Begin to ask each; told() has what came of it."""
    helpers = {name: Helper(_ask) for name in names}
    for name, helper in helpers.items():
        helper.ask(name)
    return helpers


def told(helpers: Mapping[str, Helper], deadline: float) -> dict[str, str]:
    """The texts of the other nodes, each below its node's name; of one that was silent, why. deadline: of time.monotonic()."""
    found: dict[str, str] = {}
    for name, helper in helpers.items():
        answer = helper.wait(max(1.0, deadline - time.monotonic()))
        helper.close()
        texts = answer.get("texts") if isinstance(answer, dict) else None
        if not isinstance(texts, dict):
            why = answer.get("why") if isinstance(answer, dict) else None
            found[f"{name}/NOT-READ.txt"] = f"{why or 'it did not answer in time'}\n"
            continue
        for key, text in list(texts.items())[:_TEXTS_MAX]:
            if isinstance(text, str) and is_name(key):
                found[f"{name}/{key}"] = text
    return found


def of_look(look: Look) -> dict[str, object]:
    """What the doctor saw and found: texts, and documents for JSON."""
    found = examine(look)
    seen = {f"{node.name}/facts.json": _facts(node, look) for node in look.nodes}
    return {"doctor.json": words.as_json(look, found), "doctor.txt": words.text(look, found), **seen}


def _facts(node: Node, look: Look) -> dict[str, object]:
    """Of the firewall only what was made of it: its files have the rules and addresses of all that is in the datacenter."""
    if "firewall" not in node.values:
        return as_json(node)
    return as_json(replace(node, values={**node.values, "firewall": firewall.judged(node, look.storages)}))


def is_name(key: object) -> bool:
    """Whether it is a relative path of plain words, as those of sources.gather() are: it is another node's, and becomes a name in the archive."""
    if not isinstance(key, str) or not key.isprintable() or not 0 < len(key) <= _NAME_MAX:
        return False
    return not key.startswith("/") and all(part not in ("", ".", "..") for part in key.split("/"))


def _ask(node: object) -> dict[str, object]:
    """As work of a Helper."""
    try:
        text = command.run(
            nodes.line(str(node), ["report", "--texts"], alive=9), timeout=PEER_SECONDS, limit=_LIMIT
        ).stdout
        return {"texts": json.loads(text)}
    except Error as error:
        return {"why": nodes.why_not(error)}
    except (ValueError, RecursionError):
        return {"why": "it printed no JSON: is pvedrbdstor of the same version there?"}
