"""A split brain in the lab: nodes that trust each other as Proxmox's do, a link cut without fencing, writes on both sides."""

from __future__ import annotations

import json
import re
import shlex
import time
from typing import Any

from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.errors import LabError
from tests.lab.formation import DRBD_PORT, MOUNT_POINT, RESOURCE, STORAGE, mount, on_each, promote, wait_whole
from tests.lab.guest.remote import PORT as REMOTE_PORT
from tests.lab.node import GUEST_SHARE, Node, Result

NOTIFIED = "/run/pvedrbdstor/notified"
_SLOWER_SECONDS = 4.0
ASIDE = f"{GUEST_SHARE}/aside"
"""On the host's disk: the nodes themselves have nothing but memory, where nothing may be preserved."""
JOURNAL = "/var/lib/pvedrbdstor/split-brain"
_TEMPLATES = "/usr/share/pve-manager/templates/default"
_NOTIFY = f"""package PVE::Notify;
sub common_template_data {{ return {{ hostname => 'node', fqdn => 'node' }} }}
sub notify {{ open(my $f, '>>', '{NOTIFIED}') or die; print $f "$_[0] $_[2]->{{verdict}}\\n"; close($f) }}
1;
"""


def prepare(node: Node) -> None:
    """ssh between the nodes, PVE's notification system as a file, and a journal that outlives the node, as a real disk's does."""
    trust(node)
    node.run(
        f"""set -e
mkdir -p /usr/share/perl5/PVE {_TEMPLATES} {JOURNAL} {GUEST_SHARE}/split-brain {ASIDE}
printf %s {shlex.quote(_NOTIFY)} >/usr/share/perl5/PVE/Notify.pm
touch {_TEMPLATES}/vzdump-subject.txt.hbs {_TEMPLATES}/drbdocfs2-subject.txt.hbs
grep -q ' {JOURNAL} ' /proc/mounts || mount --bind {GUEST_SHARE}/split-brain {JOURNAL}"""
    )


def trust(node: Node) -> None:
    """Let the node run commands on the others, as root by ssh, as Proxmox's nodes can, and them on it; scp fetches a file from there."""
    remote = f"/usr/bin/python3 -S {REPOSITORY}/tests/lab/guest/remote.py"
    program = f'#!/bin/sh\nexec {remote} ssh "$@"\n'
    copy = '#!/bin/sh\nwhile [ "$1" = -o ]; do shift 2; done; to=$2; [ -d "$to" ] && to=$to/${1##*/}\nssh "${1%%:*}" -- cat "${1#*:}" >"$to.new" && mv "$to.new" "$to"\n'
    node.run(
        f"""set -e
printf %s {shlex.quote(program)} >/usr/sbin/ssh && chmod 0755 /usr/sbin/ssh
printf %s {shlex.quote(copy)} >/usr/sbin/scp && chmod 0755 /usr/sbin/scp
[ -e /run/remote.started ] || {{ touch /run/remote.started; {remote} serve </dev/null >/dev/null 2>&1 & }}
until grep -q ':{REMOTE_PORT:04X} 00000000:0000 0A' /proc/net/tcp; do sleep 0.05; done"""
    )


def part(cluster: Cluster) -> None:
    """Cut DRBD's link until both nodes have missed each other; the kernels go on, each on its own copy."""
    cluster.network.drop(DRBD_PORT)
    on_each(cluster.nodes, lambda node: node.run("until grep -q cs:WFConnection /proc/drbd; do sleep 0.1; done"))


def meet(cluster: Cluster) -> None:
    """Heal it, and wait until DRBD has given up on both, or on the one that found the split so soon that the other had no time to."""
    cluster.network.heal()
    first: float | None = None
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        alone = ["cs:StandAlone" in node.run("cat /proc/drbd") for node in cluster.nodes]
        first = first or (time.monotonic() if any(alone) else None)
        if all(alone) or (first is not None and time.monotonic() - first > _SLOWER_SECONDS):
            return
        time.sleep(0.1)
    raise LabError("DRBD found no split brain")


def discard(cluster: Cluster, loser: Node) -> None:
    """End a split brain by hand, for tests of other things: all that the loser has written since is lost."""
    (winner,) = (node for node in cluster.nodes if node is not loser)
    loser.run(f"umount {MOUNT_POINT} && drbdadm secondary {RESOURCE} && (drbdadm disconnect {RESOURCE} || true)", 60)
    loser.run(f"drbdadm connect --discard-my-data {RESOURCE}")
    winner.run(f"grep -q cs:StandAlone /proc/drbd && drbdadm connect {RESOURCE} || true")
    wait_whole(cluster.nodes)
    promote(loser)
    mount(loser)


def reunite(cluster: Cluster) -> None:
    """One mirror again, also where a test has failed: the tests that follow share the cluster."""
    cluster.network.heal()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        states = [node.run("cat /proc/drbd") for node in cluster.nodes]
        if all("cs:Connected" in state for state in states):
            return
        if any("cs:StandAlone" in state for state in states):
            break
        time.sleep(0.1)
    discard(cluster, cluster.b)


def write(node: Node, path: str, kib: int, at: int = 0) -> None:
    """Random data past the page cache, as a guest writes."""
    node.run(
        f"dd if=/dev/urandom of={path} bs=4k count={kib // 4} seek={at // 4} oflag=direct conv=notrunc status=none"
    )


def digest(node: Node, path: str) -> str:
    """Of a file's content on the node's disk."""
    return node.run(f"dd if={path} bs=1M iflag=direct status=none | sha256sum").split()[0]


def show(node: Node, storage: str = STORAGE) -> dict[str, Any]:
    document = json.loads(node.run(f"pvedrbdstor split-brain show {storage} --json", 120))
    assert isinstance(document, dict)
    return document


def resolve(node: Node, *options: str, storage: str = STORAGE, timeout: float = 240) -> Result:
    return node.sh(f"pvedrbdstor split-brain resolve {storage} {shlex.join(options)}", timeout)


def resolve_killed_at(node: Node, step: str, *options: str, storage: str = STORAGE) -> None:
    """Run it and kill the process once its journal says that it has begun a step."""
    node.run(
        f"""before=$(stat -c %i {JOURNAL}/{storage}.json 2>/dev/null)
pvedrbdstor split-brain resolve {storage} {shlex.join(options)} >/run/resolve.log 2>&1 &
for try in $(seq 3000); do
    [ "$(stat -c %i {JOURNAL}/{storage}.json 2>/dev/null)" != "$before" ] && grep -q '"doing": "{step}"' {JOURNAL}/{storage}.json && break
    kill -0 $! 2>/dev/null || {{ cat /run/resolve.log; exit 1; }}
    sleep 0.02
done
kill -9 $!""",
        timeout=120,
    )


def journal(node: Node, storage: str = STORAGE) -> dict[str, Any]:
    """What the resolution has written down so far."""
    document = json.loads(node.run(f"cat {JOURNAL}/{storage}.json"))
    assert isinstance(document, dict)
    return document


def out_of_sync(node: Node) -> int:
    """KiB that a verify of the whole device finds different on the two disks."""
    node.run(
        f"drbdadm verify {RESOURCE}; sleep 0.5; while grep -q cs:Verify /proc/drbd; do sleep 0.2; done", timeout=120
    )
    found = re.search(r"oos:(\d+)", node.run("cat /proc/drbd"))
    assert found is not None
    return int(found[1])


def intrude(node: Node, marker: str, resource: str = RESOURCE, minor: int = 0) -> None:
    """What nobody should do while a resolution is open: make the side to lose Primary by hand and write to it, at its end."""
    assert len(marker) <= 512
    last = f"$(( $(cat /sys/block/drbd{minor}/size) / 8 - 1 ))"
    node.run(
        f"""set -e
drbdadm disconnect {resource} || true
drbdadm primary {resource}
printf %s {marker} | dd of=/dev/drbd{minor} bs=4k conv=sync seek={last} oflag=direct iflag=fullblock status=none
drbdadm secondary {resource}"""
    )
