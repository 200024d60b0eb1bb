"""A snapshot of the lower device by the real LVM, and a look into it beside the live file system whose UUID it had."""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Iterator

import pytest

from tests.lab import lower_lvm, splitting
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.formation import CLUSTER, on_each
from tests.lab.node import Node
from tests.lab.splitting import digest, resolve, write

DEVICE, MOUNT = "/dev/vg/r0", "/mnt/lower"
TARGET, INSIDE = "vg/r0-split-T", "/mnt/preserved"
PRESERVE = f"""
from pvedrbdstor.fencing.split import lvm, preserve, snapshot
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.steps import Preserve
volume = snapshot.volume_of({DEVICE!r})
size = lvm.snapshot_size(volume, 1 << 20, hints=True)
journal = Journal("ha", "nodea", "nodeb", 0.0, 2, 4, None, Preserve.SNAPSHOT, {TARGET!r}, size)
assert volume.group == "vg" and volume.name == "r0" and size >= volume.full_snapshot, volume
assert snapshot.volume_of("/dev/loop0") is None and not preserve.is_there(journal)
for _ in range(2):
    snapshot.make(journal, {DEVICE!r})
    preserve.check(journal, lambda _: None)
assert preserve.differs_from_device(journal, {DEVICE!r}, volume.size, lambda _: None) is None
"""
STILL_THERE = (
    PRESERVE.partition("assert volume")[0]
    + f"""
assert preserve.is_there(journal)
found = preserve.differs_from_device(journal, {DEVICE!r}, volume.size, lambda _: None)
assert found is not None and "other data" in found, found
"""
)


@pytest.fixture
def lower(cluster: Cluster) -> Iterator[Node]:
    """A node with a logical volume on a loop device, and on it an OCFS2 of the cluster, mounted."""
    node = cluster.b
    lower_lvm.prepare(node, 400)
    mkfs = f"mkfs.ocfs2 -F -q -N 2 -b 4K -C 64K -J size=4M --cluster-stack=o2cb --cluster-name={CLUSTER} -U {uuid.uuid4().hex.upper()}"
    node.run(
        f"""set -e
mkdir -p {MOUNT} {INSIDE}
lvcreate -q -L 128M -n r0 vg
{mkfs} {DEVICE}
mount -t ocfs2 {DEVICE} {MOUNT}""",
        timeout=90,
    )
    yield node
    node.sh(f"umount {INSIDE}; umount {MOUNT}", timeout=60)
    lower_lvm.remove(node)


@pytest.mark.soak
def test_a_snapshot_holds_what_was_lost_and_is_looked_into_under_a_uuid_of_its_own(lower: Node) -> None:
    python = f"cd {REPOSITORY} && PYTHONPYCACHEPREFIX=/run/pycache /usr/bin/python3 -c"
    lower.run(f"echo mine >{MOUNT}/file && umount {MOUNT}")
    lower.run(f"{python} {shlex.quote(PRESERVE)}", timeout=60)
    lower.run(f"mount -t ocfs2 {DEVICE} {MOUNT} && echo theirs >{MOUNT}/file && sync -f {MOUNT}", timeout=90)
    lower.run(
        f"""set -e
tunefs.ocfs2 --cloned-volume=preserved -y /dev/{TARGET}
tunefs.ocfs2 --fs-features=local -y /dev/{TARGET}
mount -t ocfs2 /dev/{TARGET} {INSIDE}""",
        timeout=60,
    )
    assert lower.run(f"cat {INSIDE}/file {MOUNT}/file").split() == ["mine", "theirs"]
    one, other = (lower.run(f"tunefs.ocfs2 -Q '%U' {device}").strip() for device in (DEVICE, f"/dev/{TARGET}"))
    assert one != other and len(one) == len(other) == 32
    lower.run(f"{python} {shlex.quote(STILL_THERE)}", timeout=60)


@pytest.fixture
def second(volumes: Cluster) -> Iterator[Cluster]:
    """The second storage, split: both sides have written, and DRBD has found it."""
    on_each(volumes.nodes, splitting.prepare)
    try:
        lower_lvm.form(volumes)
        file = f"{lower_lvm.MOUNT_POINT}/disk.raw"
        write(volumes.a, file, 4096)
        volumes.a.run("sync")
        volumes.network.drop(lower_lvm.PORT)
        waiting = f"until drbdadm cstate {lower_lvm.RESOURCE} | grep -qE 'WFConnection|Connecting'; do sleep 0.1; done"
        on_each(volumes.nodes, lambda node: node.run(waiting))
        write(volumes.a, file, 256)
        write(volumes.b, file, 512, at=1024)
        volumes.network.heal()
        alone = f"until drbdadm cstate {lower_lvm.RESOURCE} | grep -q StandAlone; do sleep 0.1; done"
        volumes.b.sh(alone, 10)
        volumes.b.sh(f"drbdadm disconnect {lower_lvm.RESOURCE}; drbdadm connect {lower_lvm.RESOURCE}")
        yield volumes
    finally:
        volumes.network.heal()
        lower_lvm.dissolve(volumes)


@pytest.mark.soak
def test_a_split_is_resolved_with_a_snapshot_which_is_compared_or_made_anew_before_anything_is_discarded(
    second: Cluster,
) -> None:
    """DRBD is taken down and up in between: nobody can tell whether it was written, so all of it is compared. Then it was."""
    a, b = second.nodes
    name, file = lower_lvm.STORAGE, f"{lower_lvm.MOUNT_POINT}/disk.raw"
    kept, lost = digest(a, file), digest(b, file)
    second.network.drop(lower_lvm.PORT)
    splitting.resolve_killed_at(b, "KEEPER", "--keep", "nodea", "--yes", storage=name)
    first = splitting.journal(b, name)["target"]
    b.run(f"drbdadm down {lower_lvm.RESOURCE}")
    splitting.resolve_killed_at(b, "KEEPER", "--yes", storage=name)
    again = splitting.journal(b, name)
    assert "RECHECK" in again["done"] and again["target"] == first and not again["given_up"]
    splitting.intrude(b, "written-after-preserving", lower_lvm.RESOURCE, lower_lvm.MINOR)
    second.network.heal()
    done = resolve(b, "--yes", storage=name)
    assert done.rc == 0, done.out
    assert "is preserved anew" in done.out, done.out
    last = f"$(( $(cat /sys/block/drbd{lower_lvm.MINOR}/size) / 8 - 1 ))"
    assert b.sh(f"dd if=/dev/{first}-2 bs=4k skip={last} count=1 | grep -qa written-after-preserving").rc == 0
    assert b.sh(f"dd if=/dev/{first} bs=4k skip={last} count=1 | grep -qa written-after-preserving").rc == 1
    assert digest(b, file) == digest(a, file) == kept != lost
