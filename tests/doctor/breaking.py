"""What a test breaks of the pair that is well: values of sources, by what they are about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from pvedrbdstor.doctor.facts import Look
from pvedrbdstor.doctor.finding import Severity
from tests.doctor.world import (
    CONF,
    GIB,
    HA,
    NOW,
    UNIT,
    VERIFIED,
    addresses,
    broken,
    node,
)

SHOW, DUMP, PROC = (str(node("a").values[source]) for source in ("show", "dump", "proc_drbd"))

KERNELS = [{"release": "6.1.176", "running": True, "missing": [], "drbd": "8.4.11", "drbd_on_disk": "8.4.11"}]


def verdict(kind: str, severity: str = "error", also: tuple[dict[str, str], ...] = ()) -> dict[str, object]:
    found = {"kind": kind, "cause": f"It is {kind}.", "remedy": "Run 'true'.", "severity": severity}
    return {"verdict:ha": {**found, "also": list(also)}}


def kernel(release: str, running: Mapping[str, object] = {}, **words: object) -> dict[str, object]:
    """One more that is installed, beside the running one; what each has else."""
    other = {"release": release, "running": False, "missing": [], "drbd": "8.4.11", "drbd_on_disk": "8.4.11", **words}
    return {"kernels": [{**KERNELS[0], **running}, other]}


def guard(**words: object) -> dict[str, object]:
    status = {"at": 999.0, "pid": 1, "version": "0.1.0", "outages": {}, **words}
    return {"guard": json.dumps(status)}


def bridge() -> str:
    found = json.loads(addresses("10.77.0.1", linkinfo={"info_kind": "bridge"}))
    return json.dumps([*found, {"ifname": "tap100i0", "master": "eth1", "mtu": 1500}])


def superblock(**words: object) -> dict[str, object]:
    return {"superblock:ha": words}


def fw(rules: str, **words: str) -> dict[str, object]:
    return {"firewall": {"cluster": f"[OPTIONS]\nenable: 1\n[RULES]\n{rules}\n", **words}}


def unit(name: str, **words: str) -> dict[str, object]:
    return {"units": {name: {**UNIT, **words}}}


def images(**words: object) -> dict[str, object]:
    return {"volumes:ha": words}


def write_path(**words: object) -> dict[str, object]:
    """The record of a check that has found something wrong; its words."""
    found = {"node": "nodea", "verdict": "mismatch", "began": NOW - 700, "ended": NOW - 600, **words}
    return {"write_path:ha": {**found, "judged": found, "standing": found}}


def image(vmid: int, name: str, used: int = GIB) -> dict[str, object]:
    return {"vmid": vmid, "name": name, "size": used, "used": used}


def silent() -> Look:
    return Look(node("a"), (), {"nodeb": "no route to host"}, (HA,))


def clock(seconds: float) -> Look:
    return Look(node("a"), (replace(node("b"), at=NOW + seconds),), {}, (HA,))


def version() -> Look:
    return Look(node("a"), (replace(node("b"), version="0.2.0"),), {}, (HA,))


def unread() -> Look:
    return Look(replace(node("a"), unread={"superblock:ha": "it did not answer within 6 s"}), (node("b"),), {}, (HA,))


class Unlucky(dict[str, object]):
    """A node's values; looking up one of them is a bug."""

    def __init__(self, good: Mapping[str, object], source: str) -> None:
        super().__init__(good)
        self._source = source

    def get(self, key: str, default: object = None) -> object:  # type: ignore[override]
        if key == self._source:
            raise ZeroDivisionError("no\nsuch luck")
        return super().get(key, default)


def unlucky(good: Look, source: str) -> Look:
    """The other node's source is one that the code for it does not get by."""
    (other,) = good.others
    return replace(good, others=(replace(other, values=Unlucky(other.values, source)),))


def drbd_9() -> Look:
    """A third node without a disk, as `drbdsetup show` of DRBD 9 has it."""
    show = """resource r0 { options { quorum majority; }
 _this_host { node-id 0; volume 0 { device minor 0; disk "/dev/sdb"; meta-disk internal; } }
 connection { _peer_node_id 1; path { _this_host ipv4 10.77.0.1:7789; } net { verify-alg "crc32c"; } }
 connection { _peer_node_id 2; path { _this_host ipv4 10.77.0.1:7790; } net { verify-alg "crc32c"; } } }"""
    return broken({"proc_drbd": "version: 9.3.3 (api:2/proto:118-124)\n", "show": show})


def with_disk_option(option: str) -> dict[str, object]:
    return {"show": SHOW.replace("c-plan-ahead", f"{option};\n                c-plan-ahead")}


APART: dict[str, object] = {
    "events": "exists resource name:r0 role:Primary suspended:no\n"
    "exists connection name:r0 peer-node-id:0 conn-name:peer connection:Connecting role:Unknown\nexists -\n",
    "answers": {"r0": True},
}
E, W, H = Severity.ERROR, Severity.WARNING, Severity.HINT
MANY = {f"100/vm-100-disk-{at}.raw": 12 for at in range(2)}
OLD = {**(VERIFIED or {}), "judged": {**VERIFIED["judged"], "ended": NOW - 40 * 86400}}  # type: ignore[index, dict-item]
DIVERGED = {"standing": {"mode": "full", "verdict": "diverged", "ended": NOW - 5000}}
"""And a sample that has met nothing since."""
CONF_OTHER = CONF.replace("10.77.0.2", "10.77.0.9")
KERNEL_NODES = {"pve": {**node("a").mapping("o2cb_kernel")["pve"], "node/nodeb/ipv4_address": "10.77.0.9"}}  # type: ignore[dict-item]
KERNEL_SHORT = {"pve": {**node("a").mapping("o2cb_kernel")["pve"], "heartbeat/dead_threshold": "7"}}  # type: ignore[dict-item]
FILLED = {"mounted": False, "there": True, "immutable": False, "count": 2, "names": ["dump", "images"]}
