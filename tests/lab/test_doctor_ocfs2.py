"""What `pvedrbdstor doctor` finds in the file system itself, on two real nodes; each cleared by its own remedy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import storage
from tests.lab.cluster import MEMORY_WITH_COROSYNC, Cluster
from tests.lab.doctoring import Finding, findings, prepare, settle
from tests.lab.formation import CLUSTER, MOUNT_POINT, O2NET_PORT, RESOURCE, STORAGE, Layout, check, on_each
from tests.lab.verifying import fill

REPRODUCES = {
    *("ocfs2-slots", "ocfs2-features", "ocfs2-journal", "ocfs2-small-clusters", "ocfs2-map-unread", "ocfs2-scattered"),
    "ocfs2-full",
}
OLD = Layout(
    "refcount,xattr,unwritten,sparse,inline-data,extended-slotmap,noindexed-dirs,nodiscontig-bg,nometaecc,nobackup-super",
    cluster="4K",
)
GIB = 1 << 30
UP, DOWN = f"pvedrbdstor mirror up {STORAGE}", f"pvedrbdstor mirror down {STORAGE}"
DEVICE = f"$(drbdadm sh-dev {RESOURCE}/0)"
BALLAST = f"{MOUNT_POINT}/ballast"
SLOW = 300  # seconds for what writes to all of a disk's groups, or reads them
# A group of clusters that claims to have more of them free than it has: byte 12 is bg_free_bits_count of struct ocfs2_group_desc
SPOILT_GROUP = 32256 * 4096 * 2
SPOIL = f"printf '\\377\\377' | dd of=/dev/drbd0 bs=1 seek={SPOILT_GROUP + 12} conv=notrunc,fsync status=none"


@pytest.fixture
def old() -> Iterator[Cluster]:
    """Made long ago: small clusters, small journals for its size, few features."""
    with Cluster(memory=MEMORY_WITH_COROSYNC, disk_size=65 * GIB, layout=OLD) as formed:
        storage.install(formed.nodes)
        prepare(formed)
        yield formed


def offline(cluster: Cluster, finding: Finding, change: str, answers: str = "") -> None:
    """Follow what is told to be done with the storage down: on all nodes, on one of them, on all."""
    primary, secondary = f"drbdadm primary {RESOURCE}", f"drbdadm secondary {RESOURCE}"
    assert finding["commands"][-5:] == [DOWN, primary, change, secondary, UP], finding["remedy"]
    on_each(cluster.nodes, lambda node: node.run(DOWN, 90))
    cluster.a.run(primary)
    print(cluster.a.run(f"{answers}{change}", SLOW))
    cluster.a.run(secondary)
    on_each(cluster.nodes, lambda node: node.run(UP, 150))
    settle(cluster)


def a_third_node(cluster: Cluster) -> None:
    """In the o2cb cluster, as someone adds it who is about to have one more."""
    address = f"{cluster.a.address.rpartition('.')[0]}.9"
    add = f"o2cb add-node {CLUSTER} nodec --ip {address} --port {O2NET_PORT} --number 2"
    on_each(cluster.nodes, lambda node: node.run(f"{add} && o2cb register-cluster {CLUSTER}"))


def looked(cluster: Cluster) -> dict[tuple[str, str], Finding]:
    """What is told of the file system, by id and severity."""
    listed = findings(cluster.a, STORAGE)
    print([(each["id"], each["title"]) for each in listed])
    return {(each["id"], each["severity"]): each for each in listed if each["id"].startswith("ocfs2-")}


@pytest.mark.soak
def test_a_file_system_made_long_ago_is_brought_up_to_date(old: Cluster) -> None:
    a_third_node(old)
    found = looked(old)
    assert set(found) == {
        *(("ocfs2-slots", "error"), ("ocfs2-features", "warning"), ("ocfs2-features", "hint")),
        *(("ocfs2-journal", "hint"), ("ocfs2-small-clusters", "hint")),
    }
    assert "discontig-bg" in found["ocfs2-features", "warning"]["title"]
    offline(old, found["ocfs2-slots", "error"], f"tunefs.ocfs2 -N 3 {DEVICE}")
    found = looked(old)
    assert ("ocfs2-slots", "error") not in found
    offline(old, found["ocfs2-features", "warning"], f"tunefs.ocfs2 --fs-features=discontig-bg {DEVICE}")
    more = "indexed-dirs,metaecc,backup-super"
    offline(old, found["ocfs2-features", "hint"], f"tunefs.ocfs2 --fs-features={more} {DEVICE}")
    offline(old, looked(old)["ocfs2-journal", "hint"], f"tunefs.ocfs2 -J size=256M {DEVICE}")
    assert set(looked(old)) == {("ocfs2-small-clusters", "hint")}  # which only another file system has not
    volid = storage.alloc(old.b, 100, 64 << 20)  # and all of it is used as before
    assert old.a.run(f"stat -c %s {storage.path(old.a, volid)}").strip() == str(64 << 20)
    storage.free_all(old.a)
    check(old.nodes)


@pytest.mark.soak
def test_a_damaged_map_of_free_space_is_mended_by_fsck(old: Cluster) -> None:
    on_each(old.nodes, lambda node: node.run(DOWN, 90))
    old.a.run(f"drbdadm primary {RESOURCE} && {SPOIL} && drbdadm secondary {RESOURCE}")
    on_each(old.nodes, lambda node: node.run(UP, 150))
    settle(old)
    finding = looked(old)["ocfs2-map-unread", "warning"]
    assert finding["commands"][0] == f"pvedrbdstor doctor {STORAGE}", finding
    assert ("ocfs2-map-unread", "warning") in looked(old)
    offline(old, finding, f"fsck.ocfs2 -f {DEVICE}", "yes | ")
    assert ("ocfs2-map-unread", "warning") not in looked(old)
    check(old.nodes)


@pytest.mark.soak
def test_a_full_file_system_and_one_whose_free_space_is_scattered(emptied: Cluster) -> None:
    """Small files fill what an image has left; when every second one is gone, what is free lies in pieces."""
    a, b = emptied.nodes
    prepare(emptied)
    large = storage.alloc(b, 100, 32 << 20)
    fill(b, storage.path(b, large), 32)
    many = f"i=0; while fallocate -l 2M {BALLAST}/$i 2>/dev/null; do i=$((i+1)); done"
    a.run(f"mkdir {BALLAST}; {many}", 120)
    try:
        found = looked(emptied)
        assert set(found) == {("ocfs2-full", "error")}
        frees = found["ocfs2-full", "error"]["commands"][0]
        assert frees == f"pvedrbdstor space {STORAGE} --sort frees" and large.rpartition("/")[2] in b.run(frees, 60)
        a.run(f"cd {BALLAST} && for i in $(seq 0 2 200); do rm -f $i; done; sync -f .", 60)  # what nobody needs
        found = looked(emptied)
        assert set(found) == {("ocfs2-scattered", "hint")}
        assert "Free large images" in found["ocfs2-scattered", "hint"]["remedy"]
        b.run(f"pvedrbdstor volume free {large} --yes", 60)
        assert looked(emptied) == {}
    finally:
        a.run(f"rm -rf {BALLAST}", 60)
