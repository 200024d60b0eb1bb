"""Two booted nodes on which nothing is up, and activation as Proxmox asks for it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from tests.lab import storage
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT, RESOURCE, STORAGE, on_each, wait_whole
from tests.lab.node import Node
from tests.lab.storage import PLUGIN_COMMAND, Answer, PluginError, call

HEARTBEAT_SECONDS = 15
"""What an OCFS2 mount in a cluster may take; nothing shortens its disk heartbeat."""
OWN_SECONDS = 5
RES_FILE = f"/etc/drbd.d/{RESOURCE}.res"
HOLD = f"/run/pvedrbdstor/bringup/{STORAGE}.down"


@contextmanager
def booted() -> Iterator[Cluster]:
    """Nothing is up on either node."""
    with Cluster(formed=False, memory=512) as cluster:  # ten callers at once need more than two
        storage.install(cluster.nodes)
        yield cluster


def both_up(cluster: Cluster) -> Cluster:
    """Both nodes up, by hand, as that forgets a refusal that was just given; and in sync."""
    cluster.network.heal()
    on_each(cluster.nodes, lambda node: node.run(f"pvedrbdstor mirror up {STORAGE}", 150))
    wait_whole(cluster.nodes)
    return cluster


def b_alone_down(cluster: Cluster) -> Cluster:
    """Node a up, everything of b's down: where a refusal leaves it."""
    cluster.network.heal()
    cluster.a.run(f"pvedrbdstor mirror up {STORAGE}", 150)
    stop(cluster.b)
    return cluster


def until_up(node: Node, seconds: float = 150) -> float:
    """Activate as Proxmox does, again and again while it is still coming up: the seconds it took."""
    started = time.monotonic()
    while True:
        try:
            call(node, "activate_storage", STORAGE)
            return time.monotonic() - started
        except PluginError as error:
            if "still coming up" not in str(error) or time.monotonic() - started > seconds:
                raise


def limit() -> float:
    """Seconds that an activation may take from cold: as many times more as this machine has more to do than it can."""
    return (HEARTBEAT_SECONDS + OWN_SECONDS) * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def refusal(node: Node) -> str:
    """What activation says that refuses; the second answer comes at once, from memory."""
    with pytest.raises(PluginError, match=f"Storage '{STORAGE}' is not brought up: ") as raised:
        until_up(node, 60)
    print(f"\n  {raised.value}")
    with pytest.raises(PluginError, match="is not brought up: ") as again:
        started = time.monotonic()
        call(node, "activate_storage", STORAGE)
    assert time.monotonic() - started < 3
    assert str(again.value) == str(raised.value)
    assert not mounted(node)
    return str(raised.value)


def mounted(node: Node) -> bool:
    return node.sh(f"mountpoint -q {MOUNT_POINT}").rc == 0


def stop(node: Node) -> None:
    """Everything down, as after a boot; not held down."""
    node.run(f"pvedrbdstor mirror down {STORAGE} --stop && rm {HOLD}")


def role(node: Node) -> str:
    return node.run(f"drbdadm role {RESOURCE}").split("/")[0].strip()


def mounts_so_far(node: Node) -> int:
    return int(node.run("dmesg | grep -c 'ocfs2: Mounting device' || true"))


def activate_as_pvestatd(node: Node) -> Answer:
    """The plugin goes by the name of the process that it is in."""
    command = PLUGIN_COMMAND.replace(f"{REPOSITORY}/tests/lab/guest/plugin.pl", "/run/pvestatd")
    request = json.dumps({"call": "activate_storage", "args": [STORAGE]})
    out = node.run(f"ln -sf {REPOSITORY}/tests/lab/guest/plugin.pl /run/pvestatd && {command} <<'END'\n{request}\nEND")
    answer = json.loads(out)
    return Answer([answer.get("error")], answer["seconds"])


@contextmanager
def fenced(nodes: Sequence[Node]) -> Iterator[None]:
    """With the policy that freezes I/O, and a handler that tells of its call and fences nobody; afterwards without."""
    for node in nodes:
        node.run(f"""set -e
cp {RES_FILE} /run/unfenced.res
sed -i -e 's/disk {{ on-io-error/disk {{ fencing resource-and-stonith; on-io-error/' \\
    -e 's|handlers {{|& fence-peer /run/fence-peer;|' {RES_FILE}
printf '#!/bin/sh\\necho called >>/run/fenced\\nexit 1\\n' >/run/fence-peer
chmod +x /run/fence-peer
rm -f /run/fenced""")
    try:
        yield
    finally:
        on_each(nodes, lambda node: node.run(f"cp /run/unfenced.res {RES_FILE}"))
