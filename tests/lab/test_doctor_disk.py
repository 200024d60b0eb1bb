"""What `pvedrbdstor doctor` finds of the order of writes, of fsck.ocfs2 and of a guest on a storage that may be full; each cleared by its own remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.lab import storage
from tests.lab.cluster import Cluster
from tests.lab.doctoring import GUESTS, NEVER_COMPARED, RES_FILE, doctor, follow, own_file, prepare, settle, told
from tests.lab.formation import MOUNT_POINT, RESOURCE, STORAGE, on_each

REPRODUCES = {"drbd-write-ordering", "fsck-missing", "fsck-cannot-replay", "guest-full-errors"}
ADJUST = f"drbdadm adjust {RESOURCE}"
WRITE = f"touch {MOUNT_POINT}/.written && sync -f {MOUNT_POINT}/.written && rm {MOUNT_POINT}/.written"
QM_SET = r"qm set (\d+) --(\w+) (\S+)"


@pytest.fixture
def pair(volumes: Cluster) -> Iterator[Cluster]:
    prepare(volumes)
    with own_file(volumes):
        yield volumes


def test_no_order_of_writes_no_fsck_and_a_guest_that_would_see_errors(pair: Cluster) -> None:
    a, b = pair.nodes
    volid = storage.alloc(a, 100, 4 << 20)
    on_each(
        pair.nodes,
        lambda node: node.run(f"sed -i 's/disk {{/& disk-flushes no; disk-drain no;/' {RES_FILE} && {ADJUST}"),
    )
    a.run(
        f"dd if=/dev/zero of={MOUNT_POINT}/.written bs=64k count=1 oflag=direct status=none; rm {MOUNT_POINT}/.written"
    )
    a.run(f"echo 'scsi0: {volid},size=4M' >{GUESTS}/100.conf")
    b.run("mv /sbin/fsck.ocfs2 /root/fsck.ocfs2")
    try:
        found = doctor(a)
        assert set(found) - NEVER_COMPARED == {
            *("drbd-write-ordering", "drbd-flushes-off", "fsck-missing", "guest-full-errors", "guest-flushes-lost")
        }, list(found.values())
        ordering = told(found["drbd-write-ordering"], "warning", "nodea nodeb")
        assert "Remove `disk-drain no;` and `disk-flushes no;` from disk { } of resource r0" in ordering["remedy"]
        on_each(pair.nodes, lambda node: node.run(f"sed -i 's/disk-flushes no; disk-drain no;//' {RES_FILE}"))
        follow(pair.nodes, ordering, [f"drbdadm --dry-run adjust {RESOURCE}", ADJUST])

        told(found["guest-full-errors"], "hint", "")
        set_ = re.fullmatch(QM_SET, found["guest-full-errors"]["commands"][0])
        assert set_ is not None and set_[1] == "100"
        a.run(f"echo '{set_[2]}: {set_[3]}' >{GUESTS}/100.conf")  # what `qm set` does: Proxmox is not here

        missing = told(found["fsck-missing"], "warning", "nodeb")
        assert missing["commands"] == ["apt install ocfs2-tools"]
    finally:
        b.run("mv /root/fsck.ocfs2 /sbin/fsck.ocfs2")  # what apt does
    left = doctor(a)
    a.run(f"rm {GUESTS}/100.conf && pvedrbdstor volume free {volid} --yes")
    assert set(left) - NEVER_COMPARED == {"guest-flushes-lost"}, left


@pytest.mark.soak
def test_a_journal_that_fsck_would_not_replay(pair: Cluster) -> None:
    """Mounted with an option that the kernel takes and fsck.ocfs2 does not know (tests/verify/test_space.py has its own words)."""
    a = pair.a
    a.run(f"pvedrbdstor mirror down {STORAGE}", 60)
    a.run(f"drbdadm primary {RESOURCE} && mount -o noatime,journal_async_commit /dev/drbd0 {MOUNT_POINT}", 60)
    settle(pair)
    a.run(WRITE)
    finding = told(doctor(a)["fsck-cannot-replay"], "warning", "")
    assert "async-commit" in finding["title"] and "on one node after the other" in finding["remedy"]
    for command in finding["commands"]:
        a.run(command, 150)
    a.run(WRITE)  # as any guest does: with the first one the journal's superblock is written
    settle(pair)
    assert "fsck-cannot-replay" not in doctor(a)
