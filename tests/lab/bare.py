"""Two nodes as an administrator has them before `pvedrbdstor setup`: members of a Proxmox cluster, the package, an empty disk each."""

from __future__ import annotations

import shlex

from tests.lab import assets, corosync, splitting, storage
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.formation import on_each
from tests.lab.node import GUEST_SHARE, Node
from tests.lab.protection import HANDLER

DISK = 512 << 20
MEMORY = 400  # MiB: the service, mkfs.ocfs2 and the first copy at once
_PVESM = f"""/usr/bin/perl -T -I {REPOSITORY}/perl-shim -I {REPOSITORY}/tests/perl/standins {REPOSITORY}/tests/lab/guest/pvesm.pl"""
# What pmxcfs does by itself.
_ADD = f"""#!/bin/sh
{_PVESM} "$@" || exit
for node in nodea nodeb; do
    [ "$node" = "$(hostname)" ] || ssh root@$node -- 'cat >/etc/pve/storage.cfg' </etc/pve/storage.cfg
done
"""


def install(cluster: Cluster) -> None:
    """The package's programs and its service, ssh between the nodes, and pvesm; of the mirror nothing."""
    on_each(cluster.nodes, _install)


def write_corosync(cluster: Cluster) -> None:
    """A corosync.conf of the two nodes, for a setup that is to go by nothing else of corosync."""
    text = corosync.configuration(cluster.nodes, cluster.a, corosync.Witness(full=True))
    for node in cluster.nodes:
        (node.share / "corosync.conf").write_text(text)
        node.run(f"mkdir -p /etc/corosync && cp {GUEST_SHARE}/corosync.conf /etc/corosync/")


def _install(node: Node) -> None:
    handler = assets.prepare_handler()
    storage.install([node])
    splitting.trust(node)
    node.run(
        f"""set -e
install -D -m 0755 {handler} {HANDLER}
printf %s {shlex.quote(_ADD)} >/usr/sbin/pvesm
chmod 0755 /usr/sbin/pvesm
: >/etc/pve/storage.cfg
mkdir -p /etc/pve/nodes/nodea /etc/pve/nodes/nodeb
rm -f /etc/ocfs2/cluster.conf /etc/drbd.d/*.res"""
    )
