"""What activation refuses to bring up on a node that is not fit for it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.lab import bringing_up
from tests.lab.bringing_up import (
    HOLD,
    RES_FILE,
    mounted,
    refusal,
    until_up,
)
from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT, RESOURCE, STORAGE, on_each


@pytest.fixture(scope="module")
def formed() -> Iterator[Cluster]:
    with bringing_up.booted() as cluster:
        yield bringing_up.both_up(cluster)


@pytest.fixture
def cluster(formed: Cluster) -> Cluster:
    return bringing_up.both_up(formed)


@pytest.fixture
def b_down(formed: Cluster) -> Cluster:
    return bringing_up.b_alone_down(formed)


def _hide(path: str) -> tuple[str, str]:
    return f"mv {path} {path}.away", f"mv {path}.away {path}"


UNFIT = {
    "cluster.conf is missing": (
        *_hide("/etc/ocfs2/cluster.conf"),
        r"/etc/ocfs2/cluster\.conf is missing.*Copy it from the other node",
    ),
    "the resource is not configured": (
        *_hide(RES_FILE),
        rf"DRBD resource 'r0' volume 0 is not configured on this node.*Write it to {RES_FILE}",
    ),
    "this host is not in cluster.conf": (
        "sed -i s/nodeb/other/ /etc/ocfs2/cluster.conf",
        "sed -i s/other/nodeb/ /etc/ocfs2/cluster.conf",
        r"cluster\.conf has no node 'nodeb', the name of this host, in cluster 'pve' \(it has nodea, other\)",
    ),
    "something lies in the folder": (
        f"chattr -i {MOUNT_POINT} && touch {MOUNT_POINT}/forgotten.raw",
        f"rm {MOUNT_POINT}/forgotten.raw && chattr +i {MOUNT_POINT}",
        rf"the folder {MOUNT_POINT}.* is not empty \(forgotten\.raw\)",
    ),
    "another file system has the UUID": (
        "printf '\\tdrbdocfs2-uuid 0123456789ABCDEF0123456789ABCDEF\\n' >>/etc/pve/storage.cfg",
        "sed -i '/drbdocfs2-uuid/d' /etc/pve/storage.cfg",
        r"with the UUID [0-9A-F]{32}, not 0123456789ABCDEF0123456789ABCDEF.*pvesm set ha --drbdocfs2-uuid [0-9A-F]{32}",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_an_unfit_node_is_told_what_is_wrong_and_left_as_it_was(b_down: Cluster, case: str) -> None:
    spoil, repair, expected = UNFIT[case]
    node = b_down.b
    node.run(spoil)
    try:
        said = refusal(node)
    finally:
        node.run(repair)
    assert re.search(expected, said), said
    assert node.sh(f"drbdadm role {RESOURCE} | grep Primary/").rc != 0
    assert mounted(b_down.a)


def test_nothing_can_be_written_under_the_mount(b_down: Cluster) -> None:
    assert "Operation not permitted" in b_down.b.sh(f"touch {MOUNT_POINT}/stray").out


def test_an_outdated_copy_is_not_mounted(b_down: Cluster) -> None:
    b_down.network.cut()
    b_down.b.run(f"drbdadm up {RESOURCE} && drbdadm outdate {RESOURCE}")
    assert "copy is out of date" in refusal(b_down.b)


def test_a_new_empty_copy_is_not_mounted_alone_and_is_mounted_while_it_is_filled(b_down: Cluster) -> None:
    b_down.network.cut()
    b_down.b.run(f"drbdadm create-md --force {RESOURCE} >/dev/null 2>&1")
    assert "copy is incomplete" in refusal(b_down.b)
    b_down.network.heal()
    b_down.b.run(f"drbdadm wait-connect {RESOURCE}")  # which is a change of state: the refusal is forgotten
    print(f"\n  with the resync under way: mounted in {until_up(b_down.b):.1f} s")
    assert b_down.b.run(f"ls {MOUNT_POINT}") == b_down.a.run(f"ls {MOUNT_POINT}")


def test_a_file_system_without_reflinks_is_refused_and_the_way_out_works_as_told(cluster: Cluster) -> None:
    a, b = cluster.nodes
    on_each(cluster.nodes, lambda node: node.run(f"pvedrbdstor mirror down {STORAGE} && rm {HOLD}"))
    a.run(f"drbdadm primary {RESOURCE} && yes | tunefs.ocfs2 --fs-features=norefcount /dev/drbd0", 120)
    a.run(f"drbdadm secondary {RESOURCE}")
    said = refusal(b)
    assert "lacks the feature 'refcount'" in said
    for command in re.findall(r"'((?:drbdadm|tunefs|pvedrbdstor)[^']*)'", said):
        on_each(cluster.nodes if command.startswith("pvedrbdstor") else [b], lambda node: node.run(command, 150))  # noqa: B023
    on_each(cluster.nodes, until_up)
