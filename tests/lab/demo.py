"""`./dev demo`: the main job on a real two-node cluster, told as a short story with the time of every step."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab import evidence, leftovers, storage
from tests.lab.cluster import Cluster
from tests.lab.errors import LabError
from tests.lab.formation import MOUNT_POINT, STORAGE
from tests.lab.guests.acknowledged import longest_silence
from tests.lab.guests.machine import DISK_SIZE, NODE_MEMORY, Guest, guest
from tests.lab.node import Node
from tests.lab.ops import ops

MIB = 1 << 20
DISK = 64 * MIB
GROWN = 96 * MIB
WRITES = 300  # that the guest makes between two events


class DemoFailed(LabError):
    """Something was not as it has to be."""


class Story:
    """Prints one line a step: what happened, and how long it took."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.started:6.1f} s   {text}", flush=True)

    def done(self, node: Node, text: str, seconds: float | None = None) -> None:
        took = "" if seconds is None else f"  ({seconds * 1000:.0f} ms)"
        self.say(f"[{node.name.upper()}] {text}{took}")


def check(condition: bool, what: str) -> None:
    """Raise DemoFailed unless it is so."""
    if not condition:
        raise DemoFailed(f"not so: {what}")


def same_everywhere(cluster: Cluster, path: str) -> str:
    """The checksum of a file, which both nodes must agree on."""
    on_a, on_b = (ops(node, "digest", path) for node in cluster.nodes)
    check(on_a == on_b, f"both nodes read the same from {path}")
    return str(on_a)


def disk_across_nodes(story: Story, cluster: Cluster) -> str:
    """Allocate on A, see it on B, write on A, read on B: the volume."""
    a, b = cluster.nodes
    made = storage.call(a, "vdisk_alloc", STORAGE, 100, "raw", None, DISK // 1024)
    disk = str(made.value)
    story.done(a, f"allocate a raw disk of {DISK // MIB} MiB for VM 100: {disk}", made.seconds)
    seen = storage.call(b, "vdisk_list", STORAGE, 100)
    check([image["volid"] for image in seen.value[STORAGE]] == [disk], "B lists exactly the new disk")
    info = storage.call(b, "volume_size_info", disk)
    check(info.values[:2] == [DISK, "raw"], f"B sees {DISK} bytes of raw, not {info.values[:2]}")
    path = storage.path(b, disk)
    check(path == f"{MOUNT_POINT}/images/100/vm-100-disk-0.raw", f"the path is not {path}")
    story.done(b, f"list it, its size and its path {path}", seen.seconds + info.seconds)
    ops(a, "write_pattern", path, "first", 0, 16 * MIB)
    checksum = same_everywhere(cluster, path)
    story.done(a, f"write 16 MiB; A and B read the same, SHA-256 {checksum[:12]}...")
    return disk


def snapshot_and_rollback(story: Story, cluster: Cluster, disk: str) -> None:
    """A snapshot is what the disk was, and the way back to it."""
    a, b = cluster.nodes
    path = storage.path(a, disk)
    before = same_everywhere(cluster, path)
    taken = storage.call(a, "volume_snapshot", disk, "before_upgrade")
    story.done(a, "snapshot 'before_upgrade'", taken.seconds)
    ops(a, "write_pattern", path, "second", 4 * MIB, 16 * MIB)
    check(same_everywhere(cluster, path) != before, "the disk has changed after the snapshot")
    check(same_everywhere(cluster, storage.path(b, disk, "before_upgrade")) == before, "the snapshot has not changed")
    story.done(a, "write more: the disk has changed on both nodes, the snapshot has not")
    back = storage.call(b, "volume_snapshot_rollback", disk, "before_upgrade")
    check(same_everywhere(cluster, path) == before, "the content is what it was before")
    story.done(b, "roll back on the other node: the content is what it was, on both nodes", back.seconds)


def resize(story: Story, cluster: Cluster, disk: str) -> None:
    """Grow the disk on A, see it on B."""
    a, b = cluster.nodes
    grown = storage.call(a, "volume_resize", disk, GROWN, False)
    size = storage.call(b, "volume_size_info", disk).values[0]
    check(size == GROWN, f"B sees {GROWN} bytes, not {size}")
    story.done(a, f"grow it to {GROWN // MIB} MiB, as B sees too", grown.seconds)


def template_and_clone(story: Story, cluster: Cluster, disk: str) -> list[str]:
    """A template made on A, a clone of it used on B: both volumes."""
    a, b = cluster.nodes
    storage.call(a, "volume_snapshot_delete", disk, "before_upgrade", False)
    based = storage.call(a, "vdisk_create_base", disk)
    base = str(based.value)
    content = same_everywhere(cluster, storage.path(a, base))
    story.done(a, f"delete the snapshot, make the disk a template: {base}", based.seconds)
    cloned = storage.call(b, "vdisk_clone", base, 200, None)
    clone = str(cloned.value)
    clone_path = storage.path(b, clone)
    check(same_everywhere(cluster, clone_path) == content, "the clone begins as the template")
    story.done(b, f"clone the template for VM 200: {clone}", cloned.seconds)
    ops(b, "write_pattern", clone_path, "clone", 0, 8 * MIB)
    check(same_everywhere(cluster, clone_path) != content, "the clone has changed")
    check(same_everywhere(cluster, storage.path(a, base)) == content, "the template has not changed")
    story.done(b, "write to the clone: it has changed, the template has not, as both nodes see")
    return [clone, base]


def free_all(story: Story, cluster: Cluster, volumes: list[str]) -> None:
    """Free everything: nothing may be left, visible or not."""
    a, b = cluster.nodes
    seconds = sum(
        storage.call(node, "vdisk_free", volume).seconds for node, volume in zip((b, a), volumes, strict=True)
    )
    for node in cluster.nodes:
        check(storage.listing(node) == {}, f"the listing of {node.name} is empty")
        left = storage.leftovers(node)
        check(left == [], f"nothing is left below the storage, but {left}")
    story.done(a, "free both: the listing is empty on both nodes, no file is left", seconds)


def real_guest(story: Story, cluster: Cluster) -> None:
    """A guest that writes, moved while it runs; then the node it came from dies."""
    disk = str(storage.call(cluster.a, "vdisk_alloc", STORAGE, 300, "raw", None, DISK_SIZE // 1024).value)
    with guest(300, disk) as running:
        migrate(story, cluster, running)
        survive(story, cluster, running)


def migrate(story: Story, cluster: Cluster, running: Guest) -> None:
    """The guest counts on its disk and says each number only when its disk has acknowledged it."""
    a, b = cluster.nodes
    seconds = running.start(a)
    story.done(a, f"boot a real guest on a new disk; it counts there, synchronously, and says so ({seconds:.1f} s)")
    running.wait_for_writes(time.monotonic(), WRITES)
    begun = time.monotonic()
    migration = running.migrate(b)
    running.wait_for_writes(time.monotonic(), WRITES)
    silence = longest_silence(running.acknowledged.said(), begun)
    running.check_console()
    story.done(
        b,
        f"migrate it here while it writes, in {migration.seconds:.1f} s: no number is missing, "
        f"the longest time without a write was {silence * 1000:.0f} ms",
    )


def survive(story: Story, cluster: Cluster, running: Guest) -> None:
    """Kill the node that the guest came from: it goes on, and all it was told is on its disk is there."""
    a, b = cluster.nodes
    a.kill()
    killed = time.monotonic()
    told = running.acknowledged.last()
    story.done(a, f"lose its power; {told} writes were acknowledged until now")
    running.wait_for_writes(killed, WRITES)
    silence = longest_silence(running.acknowledged.said(), killed)
    story.done(b, f"go on: the guest's writes stood still for {silence:.1f} s, and continue")
    running.check_console()
    running.stop()
    last = running.check_disk(b, running.acknowledged.last())
    story.done(b, f"read the guest's disk: all {last} writes are there, nothing acknowledged is lost")


def tell(story: Story, cluster: Cluster) -> None:
    """The main job, step by step. Raises LabError."""
    storage.install(cluster.nodes)
    status = storage.call(cluster.a, "storage_info", STORAGE).value[STORAGE]
    check(status["active"] == 1, f"the storage is active, not {status}")
    story.say(f"the service runs on both; Proxmox's plugin calls it: {status['avail'] // MIB} MiB free")
    disk = disk_across_nodes(story, cluster)
    snapshot_and_rollback(story, cluster, disk)
    resize(story, cluster, disk)
    free_all(story, cluster, template_and_clone(story, cluster, disk))
    if cluster.backend.kind == "tcg":
        story.say("the nodes are emulated here: a real guest emulated inside them is too slow, and left out")
    else:
        real_guest(story, cluster)


@contextmanager
def cluster_with_evidence(story: Story) -> Iterator[Cluster]:
    """A cluster; when the block fails, what the nodes had to say is kept first."""
    with Cluster(progress=story.say, memory=NODE_MEMORY) as cluster:
        try:
            yield cluster
        except LabError as error:
            logs = evidence.keep(cluster, "demo")
            raise DemoFailed(f"{error}\nLogs of both nodes: {logs}") from error


def main() -> int:
    """Exit status 0, or 1 and what failed."""
    story = Story()
    folder: Path | None = None
    print("pvedrbdstor: two nodes with one storage, from Proxmox's Perl to the disk", flush=True)
    try:
        with cluster_with_evidence(story) as cluster:
            folder = cluster.folder
            tell(story, cluster)
        left = leftovers.find(folder)
        check(left == [], f"nothing is left on this machine, but {left}")
    except LabError as error:
        print(f"FAILED after {time.monotonic() - story.started:.1f} s: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the nodes are gone", file=sys.stderr)
        return 130
    story.say("everything that was started is gone; all is well")
    return 0


if __name__ == "__main__":
    sys.exit(main())
