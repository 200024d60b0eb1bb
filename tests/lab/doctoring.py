"""`pvedrbdstor doctor` in the lab: what it finds, and its remedies followed as they are written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.lab import splitting
from tests.lab.cluster import Cluster
from tests.lab.formation import RESOURCE, STORAGE, on_each
from tests.lab.node import Node
from tests.lab.ops import wait_until

LABS_OWN = {"mirror-unprotected"}
"""The shared cluster has no fencing, which is not hidden."""
NEVER_COMPARED = {"verify-never"}
GUESTS = "/etc/pve/nodes/nodea/qemu-server"
RES_FILE = f"/etc/drbd.d/{RESOURCE}.res"
_STATUS = {"error": 2, "warning": 1, "hint": 0}

_LOOKS = 3
Finding = dict[str, Any]
Found = dict[str, Finding]
"""By id."""


def doctor(node: Node, *options: str, hidden: Iterable[str] = LABS_OWN) -> Found:
    """What it finds, by id; what the lab has always is left out. The exit status is that of the worst."""
    each_of = findings(node, *options)
    return {each["id"]: each for each in each_of if each["id"] not in set(hidden)}


def found_by(node: Node, *expected: str) -> Found:
    """What it finds, which is this and no more."""
    found = doctor(node)
    assert set(found) - NEVER_COMPARED == set(expected), list(found.values())
    return found


def findings(node: Node, *options: str) -> list[Finding]:
    """All of them, also several of one id. Where something was late, which a starved emulated processor can be, it looks again."""
    for _ in range(_LOOKS):
        found = _findings(node, *options)
        if not any(_late(each) for each in found):
            break
    return found


def _late(finding: Finding) -> bool:
    words = ("did not answer within", "did not answer in time")
    return finding["id"] in ("unread", "node-silent") and any(each in finding["meaning"] for each in words)


def _findings(node: Node, *options: str) -> list[Finding]:
    result = node.sh(f"pvedrbdstor doctor --json {' '.join(options)}", 60)
    document, _ = json.JSONDecoder().raw_decode(result.out[result.out.index("{") :])
    found: list[Finding] = document["findings"]
    print(*(f"{each['id']}: {each['title']}. {each['meaning']}" for each in found), sep="\n")
    assert result.rc == document["exit_status"] == max((_STATUS[each["severity"]] for each in found), default=0), found
    return found


def told(found: Finding, severity: str, nodes: str) -> Finding:
    """The finding, when it has this severity and names these nodes, as in "nodea nodeb"."""
    assert found["severity"] == severity and found["nodes"] == nodes.split(), found
    return found


def follow(nodes: Sequence[Node], finding: Finding, expected: Sequence[str], timeout: float = 120) -> None:
    """Run the commands of the remedy, which are these, one after the other, each on all of the nodes before the next one."""
    assert finding["commands"] == list(expected), finding["remedy"]
    for command in expected:
        for node in nodes:
            node.run(command, timeout)


def edit_drbd_conf(nodes: Sequence[Node], finding: Finding) -> None:
    """What a reader does who is told "write `X` in disk { }" or "remove `X` from disk { }" of the resource in drbd.conf on both nodes."""
    assert f"of resource {RESOURCE} " in finding["remedy"] and "in drbd.conf on both nodes" in finding["remedy"], (
        finding
    )
    for node in nodes:
        text = _edited(node.run(f"cat {RES_FILE}"), finding["remedy"])
        node.run(f"cat >{RES_FILE} <<'END'\n{text}END")


def _edited(text: str, remedy: str) -> str:
    written = re.findall(r"`([^`]+)` in (net|disk|handlers) \{ \}", remedy)
    gone = [
        line for part in re.findall(r"remove (.+) from disk \{ \}", remedy) for line in re.findall(r"`([^`]+)`", part)
    ]
    assert written or gone, remedy
    for lines, section in written:
        for name in (line.split()[0] for line in lines.split(";") if line.strip()):
            text = re.sub(rf"(?<![\w-]){name} [^;]*;", "", text)
        text = text.replace(f"{section} {{", f"{section} {{ {lines}", 1)
        assert lines in text, text
    for line in gone:
        assert line in text, text
        text = text.replace(line, "")
    return text


def prepare(cluster: Cluster) -> None:
    """As an administrator should have it: nodes that reach each other, vendors' scripts masked, the monitor calm, metadata saved."""
    on_each(cluster.nodes, splitting.prepare)
    on_each(cluster.nodes, lambda node: node.run(f"mkdir -p {GUESTS} && pvedrbdstor vendor-units mask"))
    on_each(cluster.nodes, compiled)
    settle(cluster)
    kept = f"/var/lib/pvedrbdstor/metadata/{STORAGE}"
    on_each(cluster.nodes, lambda node: node.run(f"[ -d {kept} ] || pvedrbdstor metadata save {STORAGE}", 60))


def compiled(node: Node) -> None:
    """All that the doctor loads, as it is in an installed package: else its first look, all helpers at once, would do it within their limits."""
    node.run(
        "[ -e /run/doctor-compiled ] || { pvedrbdstor doctor --local >/dev/null; touch /run/doctor-compiled; }", 90
    )


@contextmanager
def own_file(cluster: Cluster) -> Iterator[None]:
    """DRBD's configuration is put back afterwards, and in force."""
    on_each(cluster.nodes, lambda node: node.run(f"cp -p {RES_FILE} /root/"))
    yield
    on_each(cluster.nodes, lambda node: node.run(f"cp -p /root/{RESOURCE}.res {RES_FILE} && drbdadm adjust {RESOURCE}"))


def settle(cluster: Cluster) -> None:
    """Wait until both nodes' monitors have seen all well, but for the fencing that the shared cluster has not."""
    for node in cluster.nodes:
        kept = f"/var/lib/pvedrbdstor/verify/last; grep -q unprotected /run/pvedrbdstor/live/{STORAGE}.json"
        wait_until(lambda node=node, kept=kept: node.sh(f"mkdir -p {kept}").rc == 0, "a calm view")  # type: ignore[misc]
