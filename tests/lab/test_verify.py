"""`pvedrbdstor verify` on the real cluster: planted differences found and nothing else, and every obstacle told with its reason."""

from __future__ import annotations

import json
import random
import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.lab import splitting, storage
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT, RESOURCE, STORAGE, on_each
from tests.lab.node import Node, Result
from tests.lab.results import Results
from tests.lab.splitting import ASIDE
from tests.lab.storage import alloc, call, path

MIB = 1 << 20
BLOCK = 4096
_PLANT = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_DSYNC)
for block in map(int, sys.argv[2:]):
    old = os.pread(fd, 512, block * 4096)
    os.pwrite(fd, bytes(byte ^ 255 for byte in old), block * 4096)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
"""


def verify(node: Node, *options: str, timeout: float = 240) -> Result:
    return node.sh(f"pvedrbdstor verify {STORAGE} {shlex.join(options)}", timeout)


def found(node: Node, *options: str, timeout: float = 240) -> dict[str, Any]:
    """The document of a comparison that came to an end or was stopped."""
    result = verify(node, *options, "--json", timeout=timeout)
    lines = result.out[result.out.index("{") :]
    document, _ = json.JSONDecoder().raw_decode(lines)
    assert isinstance(document, dict)
    assert document.get("exit_status", 2) == result.rc, result.out
    return document


def blocks(ranges: Sequence[dict[str, int]]) -> set[int]:
    return {
        block for part in ranges for block in range(part["offset"] // BLOCK, (part["offset"] + part["length"]) // BLOCK)
    }


def size_of(node: Node) -> int:
    return int(node.run("cat /sys/block/drbd0/size")) * 512


def plant(node: Node, numbers: Sequence[int]) -> None:
    """Turn the first bits of blocks of the node's disk over, behind DRBD's back. Done again, it undoes it."""
    words = [node.run(f"drbdadm sh-ll-dev {RESOURCE}").strip(), *map(str, numbers)]
    node.run(f"/usr/bin/python3 -S -c {shlex.quote(_PLANT)} {shlex.join(words)}")


@pytest.fixture
def pair(volumes: Cluster) -> Iterator[Cluster]:
    on_each(volumes.nodes, splitting.prepare)
    yield volumes
    for node in volumes.nodes:
        assert "cs:Connected ro:Primary/Primary ds:UpToDate/UpToDate" in node.run("cat /proc/drbd")
        assert node.sh("pgrep -f 'pvedrbdstor verify'").rc == 1, "nothing is left behind"


def places(node: Node, file: str) -> list[int]:
    """The blocks of the device that a file has, in the order of the file."""
    numbers: list[int] = []
    for line in node.run(f"sync; filefrag -v -b4096 {file}").splitlines():
        words = line.replace(":", " ").replace("..", " ").split()
        if words and words[0].isdigit():
            numbers += range(int(words[3]), int(words[4]) + 1)
    return numbers


def image_of(node: Node, vmid: int, size: int = 16 * MIB, name: str | None = None) -> str:
    """A new image, written from end to end; nobody uses it, so that what is planted there harms no file system."""
    image = path(node, alloc(node, vmid, size, name=name))
    fill(node, image, size // MIB)
    return image


def fill(node: Node, file: str, mib: int) -> None:
    node.run(f"dd if=/dev/urandom of={file} bs=1M count={mib} oflag=direct conv=notrunc status=none", 120)


def free_space(node: Node) -> list[int]:
    """Blocks that no file has, and none will soon: those of a file that is gone, in the middle."""
    node.run(f"dd if=/dev/zero of={MOUNT_POINT}/gone bs=1M count=32 oflag=direct status=none")
    numbers = places(node, f"{MOUNT_POINT}/gone")
    node.run(f"rm {MOUNT_POINT}/gone; sync -f {MOUNT_POINT}")
    return numbers[len(numbers) // 4 : -len(numbers) // 4]


@contextmanager
def planted(node: Node, numbers: Sequence[int]) -> Iterator[None]:
    plant(node, numbers)
    try:
        yield
    finally:
        plant(node, numbers)


@contextmanager
def slow_comparison(node: Node) -> Iterator[Future[Result]]:
    """One that takes minutes, well under way."""
    with ThreadPoolExecutor(1) as pool:
        node.run("rm -f /run/slow; rm -rf /var/lib/pvedrbdstor/verify")
        command = f"pvedrbdstor verify {STORAGE} --mode full --rate 16"
        running = pool.submit(node.sh, f"echo $$ >/run/slow; exec {command}", 300)
        for other in (node,):
            other.run("until [ -s /run/slow ] && grep -q [0-9] /run/slow; do sleep 0.1; done", 30)
        node.run(
            "before=$(cat /sys/block/drbd0/stat); until [ \"$(awk '{print $3}' /sys/block/drbd0/stat)\" "
            "-gt $(($(echo $before | cut -d' ' -f3) + 131072)) ]; do sleep 0.2; done",
            60,
        )
        yield running


def stopped(result: Result) -> str:
    """What a comparison says that could not go on."""
    assert result.rc == 2 and "not compared to the end" in result.out, result.out
    return result.out


def test_equal_copies_are_clean_on_both_nodes(pair: Cluster) -> None:
    for node in pair.nodes:
        document = found(node, "--mode", "full")
        assert document["verdict"] == "clean", document
        assert document["compared"] == document["size"] == size_of(node)


def test_what_differs_is_found_exactly_and_named(pair: Cluster, vmid: int) -> None:
    """In an image, in its snapshot alone, and in free space; on either node; written behind DRBD's back."""
    a, b = pair.nodes
    dice = random.Random(vmid)
    image = image_of(a, vmid)
    volid = f"{STORAGE}:{vmid}/{image.rpartition('/')[2]}"
    call(a, "volume_snapshot", volid, "before")
    fill(a, image, 8)  # from here on the snapshot has 8 MiB alone
    snapshot = path(a, volid, "before")
    in_image, in_snapshot, free = places(a, image), places(a, snapshot)[:2048], free_space(a)
    on_a = dice.sample(in_image, 5)
    on_b = [*dice.sample([block for block in in_image if block not in on_a], 30), *dice.sample(in_snapshot, 5)]
    in_free = dice.sample(free, 5)
    with planted(a, on_a), planted(b, [*on_b, *in_free]):
        for node in pair.nodes:
            document = found(node, "--mode", "full")
            assert document["verdict"] == "diverged" and document["exit_status"] == 1
            assert blocks(document["diverged"]) == {*on_a, *on_b, *in_free}
            assert not document["unsettled"]
        named = {entry["path"] for entry in document["meaning"]["found"] if entry["path"]}
        assert named == {path.removeprefix(f"{MOUNT_POINT}/") for path in (image, snapshot)}
        assert any(entry["harm"] == "free" for entry in document["meaning"]["found"])
        allocated = found(a, "--mode", "allocated", "--granularity", "4k")
        assert blocks(allocated["diverged"]) == {*on_a, *on_b}, "and nothing of what is free"
        assert 24 * MIB < allocated["compared"] < size_of(a)
        sampled = found(a, "--fraction", "100%")
        assert blocks(sampled["diverged"]) == {*on_a, *on_b, *in_free} and sampled["sample"]["blocks"] == 1
        told = verify(a, "--mode", "allocated")
        assert told.rc == 1 and "DIFFER between nodea and nodeb" in told.out and image.rpartition("/")[2] in told.out
    assert found(a, "--mode", "full")["verdict"] == "clean"


def test_a_sample_touches_every_image(pair: Cluster, vmid: int) -> None:
    """One whose blocks all differ is found, however small the sample."""
    image = image_of(pair.a, vmid, 4 * MIB)
    image_of(pair.a, vmid, 32 * MIB)
    with planted(pair.b, places(pair.a, image)):
        document = found(pair.a, "--fraction", "0.01%")
        assert document["verdict"] == "diverged" and blocks(document["diverged"]) <= set(places(pair.a, image))


def test_writes_from_both_nodes_are_no_difference(pair: Cluster, vmid: int, results: Results) -> None:
    under_load(pair, vmid, 1, results)


@pytest.mark.soak
def test_writes_from_both_nodes_are_no_difference_20_times(pair: Cluster, vmid: int, results: Results) -> None:
    under_load(pair, vmid, 20, results)


def under_load(pair: Cluster, vmid: int, rounds: int, results: Results) -> None:
    """And what differs besides is found all the same."""
    images = [image_of(node, vmid + at, 32 * MIB) for at, node in enumerate(pair.nodes)]
    quiet = image_of(pair.a, vmid, 4 * MIB, name=f"vm-{vmid}-disk-9.raw")
    real = places(pair.a, quiet)[7:9]
    with ExitStack() as stack:
        for number, (node, image) in enumerate(zip(pair.nodes, images, strict=True)):
            stack.enter_context(busy(node, image, number))
        for number in range(rounds):
            document = found(pair.nodes[number % 2], "--mode", "full", timeout=400)
            assert not document["diverged"] and document["stopped"] is None, document
            with planted(pair.b, real):
                damaged = found(pair.nodes[number % 2], "--mode", "allocated", timeout=400)
                assert blocks(damaged["diverged"]) == set(real)
            results.row(
                "Comparing the copies while both nodes write",
                round=str(number + 1),
                unsettled=str(len(blocks(document["unsettled"]))),
                seconds=f"{document['seconds']:.0f}",
                with_a_difference=f"{damaged['seconds']:.0f}",
            )


@contextmanager
def busy(node: Node, file: str, seed: int) -> Iterator[None]:
    program = f"{REPOSITORY}/tests/lab/guest/busy.py"
    node.run(f"/usr/bin/python3 -S {program} {file} {seed} >/run/busy.log 2>&1 </dev/null & echo $! >/run/busy.pid")
    node.run("until [ -s /run/busy.log ]; do sleep 0.1; done", 30)
    try:
        yield
        assert int(node.run("tail -n 1 /run/busy.log").strip()) > 20
    finally:
        node.run("pid=$(cat /run/busy.pid); kill $pid; while [ -e /proc/$pid ]; do sleep 0.05; done")


# --- what is in the way ------------------------------------------------------------------------------------------


def test_a_diskless_node_and_a_resync_are_refused(pair: Cluster, vmid: int) -> None:
    a, b = pair.nodes
    image = image_of(a, vmid)
    b.run(f"drbdadm detach {RESOURCE}")
    try:
        for node in pair.nodes:
            refused = verify(node)
            assert refused.rc == 2 and "is Diskless: that would read the peer and prove nothing" in refused.out
        fill(a, image, 16)
        a.run(f"drbdadm pause-sync {RESOURCE}")
        b.run(f"drbdadm attach {RESOURCE} && until grep -q cs:PausedSyncT /proc/drbd; do sleep 0.1; done")
        for node in pair.nodes:
            refused = verify(node)
            assert refused.rc == 2 and "a resync is running (PausedSync" in refused.out, refused.out
    finally:
        a.sh(f"drbdadm resume-sync {RESOURCE}")
        b.run("until grep -q 'cs:Connected.*ds:UpToDate/UpToDate' /proc/drbd; do sleep 0.2; done", 120)
    assert found(a, "--mode", "full")["verdict"] == "clean"


def test_a_disk_that_is_taken_away_meanwhile_stops_it(pair: Cluster) -> None:
    a, b = pair.nodes
    with slow_comparison(a) as running:
        b.run(f"drbdadm detach {RESOURCE}")
        assert "Diskless" in stopped(running.result())
    b.run(f"drbdadm attach {RESOURCE}; until grep -q ds:UpToDate/UpToDate /proc/drbd; do sleep 0.2; done", 120)


def test_a_node_whose_storage_is_down_is_refused(pair: Cluster) -> None:
    b = pair.b
    b.run(f"pvedrbdstor mirror down {STORAGE}", 60)
    try:
        for node in pair.nodes:
            refused = verify(node)
            assert refused.rc == 2 and "nodeb is Secondary, and DRBD lets nobody read there" in refused.out, refused.out
    finally:
        b.run(f"pvedrbdstor mirror up {STORAGE}", 120)


def test_a_peer_that_is_killed_stops_it(pair: Cluster) -> None:
    a, b = pair.nodes
    with slow_comparison(a) as running:
        b.run("pkill -9 -f 'pvedrbdstor verify --serve'")
        assert "nodeb does not answer any more" in stopped(running.result())


def test_a_leader_that_is_killed_leaves_nothing_on_the_other_node(pair: Cluster) -> None:
    a, b = pair.nodes
    with slow_comparison(a) as running:
        a.run("kill -9 $(cat /run/slow)")
        running.result()
        b.run("while pgrep -f 'pvedrbdstor verify --serve'; do sleep 0.1; done", 20)


def test_what_is_interrupted_goes_on_where_it_was(pair: Cluster, vmid: int) -> None:
    a, b = pair.nodes
    image = image_of(a, vmid, 4 * MIB)
    with planted(b, places(a, image)[3:4]):
        with slow_comparison(a) as running:
            a.run("kill -INT $(cat /run/slow)")
            result = running.result()
        assert result.rc == 130 and f"'pvedrbdstor verify {STORAGE} --resume' goes on" in result.out, result.out
        document = found(a, "--resume")
        assert document["verdict"] == "diverged" and document["compared"] == size_of(a)
        assert blocks(document["diverged"]) == set(places(a, image)[3:4])
        again = verify(a, "--resume")
        assert again.rc == 2 and "no comparison of it was interrupted" in again.out


def test_taking_the_mirror_down_ends_it_on_either_side(pair: Cluster) -> None:
    a, b = pair.nodes
    for node, status, words in ((a, 130, "it was interrupted"), (b, 2, "nodeb was told to end it")):
        with slow_comparison(a) as running:
            said = node.run(f"pvedrbdstor mirror down {STORAGE} 2>&1", 60)
            result = running.result()
        try:
            assert "ending the comparison that reads it (process " in said and "is down on this node" in said, said
            assert result.rc == status and words in result.out, result.out
        finally:
            node.run(f"pvedrbdstor mirror up {STORAGE}", 120)
    document = found(a, "--resume")
    assert document["verdict"] == "clean" and document["compared"] == size_of(a)


def test_a_link_that_is_cut_stops_it_and_a_split_brain_is_refused(pair: Cluster) -> None:
    a, b = pair.nodes
    with slow_comparison(a) as running:
        splitting.part(pair)
        assert "is not connected to its peer" in stopped(running.result())
    b.run("while pgrep -f 'pvedrbdstor verify --serve'; do sleep 0.2; done", 90)
    splitting.meet(pair)
    for node in pair.nodes:
        refused = verify(node)
        assert refused.rc == 2 and ("is StandAlone" in refused.out or "is not connected" in refused.out), refused.out
    done = splitting.resolve(b, "--keep", "nodea", "--preserve-to", ASIDE, "--yes")
    assert done.rc == 0, done.out
    b.run(f"rm -rf {ASIDE}/*")
    assert found(a, "--mode", "full")["verdict"] == "clean"


def test_what_cannot_be_is_refused(pair: Cluster) -> None:
    for options in (["--granularity", "1k"], ["--granularity", "2M"], ["--fraction", "0%"], ["--mode", "x"]):
        assert verify(pair.a, *options).rc == 2
    assert pair.a.sh("pvedrbdstor verify nothing").rc == 2
    other = verify_as_another_version(pair)
    assert other.rc == 2 and "they do not understand one another" in other.out, other.out


def verify_as_another_version(pair: Cluster) -> Result:
    """The other node's program says that it is of another one."""
    pair.b.run(
        f"""cat >/usr/bin/pvedrbdstor <<'PROGRAM'
#!/usr/bin/python3
import sys
sys.path.insert(0, "{REPOSITORY}")
sys.dont_write_bytecode = True
from pvedrbdstor.verify import copy
copy.VERSION, copy.__version__ = 99, "9.9"
from pvedrbdstor.cli.main import main
main()
PROGRAM"""
    )
    try:
        return verify(pair.a)
    finally:
        storage.write_program(pair.b)


@pytest.mark.soak
def test_differences_written_while_the_node_was_dead_are_found_exactly_20_times(vmid: int, results: Results) -> None:
    """To its disk, by the host: 1 to 200 blocks anywhere in images and free space, and none that DRBD copies anew."""
    with Cluster(memory=320) as cluster:
        a, b = cluster.nodes
        storage.install(cluster.nodes)
        on_each(cluster.nodes, splitting.prepare)
        images = [image_of(a, vmid, name=f"vm-{vmid}-disk-{number}.raw") for number in range(3)]
        candidates = [*(block for image in images for block in places(a, image)), *free_space(a)]
        in_files = {block for image in images for block in places(a, image)}
        dice = random.Random(5)
        for number in range(20):
            count = dice.randint(1, 200)
            chosen = dice.sample(candidates, count)
            b.kill()
            with b.disk.open("r+b") as disk:
                for block in chosen:
                    disk.seek(block * BLOCK)
                    disk.write(dice.randbytes(512))
            a.run("until grep -q cs:WFConnection /proc/drbd; do sleep 0.1; done", 60)
            cluster.rejoin(b)
            storage.install([b])
            splitting.prepare(b)
            document = found(cluster.nodes[number % 2], "--mode", "full")
            assert blocks(document["diverged"]) == set(chosen)
            allocated = found(a, "--mode", "allocated", "--granularity", "4k")
            assert blocks(allocated["diverged"]) == set(chosen) & in_files
            results.row(
                "Differences written while a node was dead",
                round=str(number + 1),
                planted=str(count),
                found=str(len(blocks(document["diverged"]))),
                seconds=f"{document['seconds']:.0f}",
            )
            b.run(f"pvedrbdstor mirror down {STORAGE}", 60)
            b.run(
                f"drbdadm invalidate {RESOURCE}; sleep 1; until grep -q ds:UpToDate/UpToDate /proc/drbd; do sleep 0.2; done",
                120,
            )
            b.run(f"pvedrbdstor mirror up {STORAGE}", 120)


def test_drbds_own_verify_finds_the_same(pair: Cluster, vmid: int) -> None:
    a, b = pair.nodes
    image = image_of(a, vmid, 8 * MIB)
    different = random.Random(vmid).sample(places(a, image), 20)
    with planted(b, different):
        document = found(a, "--mode", "kernel")
        assert document["verdict"] == "diverged" and blocks(document["diverged"]) == set(different), document
        assert any("DRBD's verify has found 80 KiB different" in remark for remark in document["remarks"])
        assert blocks(found(b, "--mode", "full")["diverged"]) == set(different)
    again = found(b, "--mode", "kernel")
    assert again["verdict"] == "clean" and again["marked_by_drbd_kib"] == 80
    b.run(f"pvedrbdstor mirror down {STORAGE} --stop && pvedrbdstor mirror up {STORAGE}", 180)
    a.run("until grep -q oos:0 /proc/drbd; do sleep 0.1; done", 60)


def test_without_an_algorithm_drbds_own_verify_is_refused(pair: Cluster) -> None:
    a = pair.a
    quiet = a.run(
        f"sed -i.kept s/verify-alg.crc32c.// /etc/drbd.d/{RESOURCE}.res && drbdadm adjust {RESOURCE} && echo done"
    )
    assert "done" in quiet
    try:
        refused = verify(a, "--mode", "kernel")
        assert refused.rc == 2 and "no `verify-alg` is set" in refused.out, refused.out
    finally:
        a.run(f"mv /etc/drbd.d/{RESOURCE}.res.kept /etc/drbd.d/{RESOURCE}.res && drbdadm adjust {RESOURCE}")
