"""A real split brain on the real cluster: told on both nodes, shown, resolved; what is lost is preserved before it is lost."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lab import formation, splitting, storage
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.formation import DRBD_PORT, MOUNT_POINT, RESOURCE, STORAGE, on_each
from tests.lab.node import GUEST_SHARE, Node
from tests.lab.ops import running_op, wait_until
from tests.lab.results import Results
from tests.lab.splitting import ASIDE, digest, out_of_sync, resolve, show, write
from tests.lab.storage import alloc, path

MIB = 1 << 20
RES = f"/etc/drbd.d/{RESOURCE}.res"
LIMIT = 3.0  # seconds from the kernel's word to everybody else's
TABLE = "Split brain: from DRBD's finding it to being told (s)"


def told(cluster: Cluster, results: Results | None) -> None:
    """Heal the link; each node must tell of the split in its log and notification within LIMIT, and in a status that is asked for then, which takes as
    long as it takes on an emulated processor."""
    words = ["/usr/bin/python3", "-m", "tests.lab.guest.split_watch", storage.LOG, splitting.NOTIFIED]
    command = f"cd {REPOSITORY} && PYTHONPYCACHEPREFIX=/run/pycache exec {shlex.join(words)}"
    status = f"PYTHONPYCACHEPREFIX=/run/pycache pvedrbdstor mirror status {STORAGE}"
    for _ in range(2):  # the first one compiles its modules, which the package has compiled
        took = [answer.seconds for answer in on_each(cluster.nodes, lambda node: node.sh(status, 60))]
    with ThreadPoolExecutor(2) as pool:
        watched = [pool.submit(node.run, command, 90) for node in cluster.nodes]
        cluster.nodes[0].run("sleep 1")  # both watch by now
        splitting.meet(cluster)
        seen = [json.loads(watch.result().splitlines()[-1]) for watch in watched]
    for node, found, asking in zip(cluster.nodes, seen, took, strict=True):
        if results is not None:
            shown = {name: f"{seconds:.2f}" for name, seconds in found.items()}
            results.row(TABLE, node=node.name, **shown)
        assert set(found) == {"view", "log", "notification", "status"}, found
        assert all(seconds < LIMIT + (asking if name == "status" else 0) for name, seconds in found.items()), (
            found,
            took,
        )


def preserved(node: Node) -> str:
    """The files of the one resolution that has preserved anything."""
    return node.run(f"ls -d {ASIDE}/{STORAGE}-split-*").strip() + "/files"


def first_preserved(node: Node) -> str:
    """The oldest folder: where a try was interrupted, a later one preserves once more."""
    return node.run(f"ls -d {ASIDE}/{STORAGE}-split-* | sort | head -n 1").strip()


def whole(cluster: Cluster) -> None:
    """One mirror again: in sync by DRBD's word and by a verify of everything, and mounted on both."""
    for node in cluster.nodes:
        assert "cs:Connected ro:Primary/Primary ds:UpToDate/UpToDate" in node.run("cat /proc/drbd")
        node.run(f"grep -q ' {MOUNT_POINT} ocfs2 rw' /proc/mounts")
    assert out_of_sync(cluster.a) == 0


@pytest.fixture
def parted(volumes: Cluster, vmid: int) -> Iterator[tuple[Cluster, list[str]]]:
    """The shared cluster with three images, apart; each test ends with one mirror again."""
    on_each(volumes.nodes, splitting.prepare)
    images = [alloc(volumes.a, vmid, 16 * MIB, name=f"vm-{vmid}-disk-{number}.raw") for number in range(3)]
    for image in images:
        write(volumes.a, path(volumes.a, image), 8192)
    volumes.a.run("sync")
    splitting.part(volumes)
    try:
        yield volumes, [path(volumes.a, image) for image in images]
    finally:
        splitting.reunite(volumes)
        on_each(volumes.nodes, lambda node: node.run(f"rm -rf {ASIDE}/*"))


def test_a_split_brain_is_told_on_both_nodes_shown_and_resolved(
    parted: tuple[Cluster, list[str]], results: Results
) -> None:
    cluster, (by_a, by_b, by_nobody) = parted
    a, b = cluster.nodes
    write(a, by_a, 256, at=640)
    write(b, by_b, 512, at=1280)
    b.run(f"cp {by_b} {MOUNT_POINT}/only-on-b && sync -f {MOUNT_POINT}")
    kept, lost, same = digest(a, by_a), digest(b, by_b), digest(a, by_nobody)
    told(cluster, results)

    shown = on_each(cluster.nodes, show)
    for document, mine, other in zip(shown, (by_a, by_b), (by_b, by_a), strict=True):
        assert document["case"] == "split-brain" and document["other_asked"] and document["since"] is not None
        fates = {f"{MOUNT_POINT}/{change['path']}": change["fate"] for change in document["changes"]}
        assert (fates[by_a], fates[by_b], fates.get(by_nobody, "same")) == ("differs", "differs", "same")
        here, there = (" ".join(document["lost_if_discarded"][side]) for side in ("here", "there"))
        assert Path(mine).name in here and Path(other).name in there

    options = ["--keep", "nodea", "--preserve-to", ASIDE, "--yes"]
    with running_op(b, "lock_as_qemu", by_b):
        refused = resolve(b, *options)
        assert refused.rc == 75 and "is in use on nodeb" in refused.out, refused.out
    assert "ro:Primary/Unknown" in b.run("cat /proc/drbd") and not b.run(f"ls {ASIDE}")

    done = resolve(b, *options)
    assert done.rc == 0, done.out
    results.row("Split brain: resolving it", images="3 x 16 MiB", preserved="copies", seconds=f"{done.seconds:.1f}")
    assert digest(b, by_a) == digest(a, by_a) == kept
    assert digest(b, by_b) == digest(a, by_b) != lost
    assert digest(b, by_nobody) == digest(a, by_nobody) == same
    for node in cluster.nodes:
        assert node.sh(f"test -e {MOUNT_POINT}/only-on-b").rc == 1
    aside = preserved(b)
    for relative in (by_b.removeprefix(f"{MOUNT_POINT}/"), "only-on-b"):
        assert b.run(f"sha256sum <{aside}/{relative}").split()[0] == lost
    whole(cluster)
    again = resolve(b, *options)
    assert again.rc == 75 and "no split brain" in again.out


COMPARE = f"""
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.fencing.split import look, verify
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.steps import Preserve
config = StorageConfig({STORAGE!r}, {MOUNT_POINT!r}, {RESOURCE!r})
size = look.data_size(config)
at = size // 2 // 4096 * 4096
with open("DEVICE", "r+b", buffering=0) as lower:
    lower.seek(at)
    lower.write(bytes(range(256)) * 16)
    __import__("os").fsync(lower.fileno())
verify.compare(config, Journal({STORAGE!r}, "nodea", "nodeb", 0.0, 2, 4, None, Preserve.FILES, "/aside", ranges=((at, 4096),)), print)
"""


def test_a_difference_is_copied_anew_by_a_resync_that_drbds_own_events_show(volumes: Cluster) -> None:
    """A block of the Secondary's disk is changed behind DRBD's back."""
    b = volumes.b
    b.run(f"pvedrbdstor mirror down {STORAGE}", 60)
    try:
        device = b.run(f"drbdadm sh-ll-dev {RESOURCE}").strip()
        program = shlex.quote(COMPARE.replace("DEVICE", device))
        said = b.run(f"cd {REPOSITORY} && PYTHONPYCACHEPREFIX=/run/pycache /usr/bin/python3 -c {program}", 120)
        assert "found different" in said and "compared again" in said, said
    finally:
        b.run(f"pvedrbdstor mirror up {STORAGE}", 120)
    whole(volumes)


@pytest.mark.soak
@pytest.mark.parametrize("step", ["COPY", "DOWN", "CHECK", "DISCARD", "KEEPER", "COMPARE"])
def test_a_resolution_that_was_killed_goes_on_where_it_was(parted: tuple[Cluster, list[str]], step: str) -> None:
    cluster, (by_a, by_b, _) = parted
    a, b = cluster.nodes
    write(a, by_a, 256)
    write(b, by_b, 512)
    kept, lost = digest(a, by_a), digest(b, by_b)
    splitting.meet(cluster)
    splitting.resolve_killed_at(b, step, "--keep", "nodea", "--preserve-to", ASIDE, "--yes")
    assert splitting.journal(b)["doing"] == step
    assert show(b)["in_progress"] is not None
    other_way = resolve(b, "--keep", "nodeb", "--yes")
    assert other_way.rc == 75 and "resolution of its own open" in other_way.out, other_way.out
    done = resolve(b, "--yes")
    assert done.rc == 0, done.out
    assert digest(b, by_a) == kept and digest(b, by_b) != lost
    assert b.run(f"sha256sum <{first_preserved(b)}/files{by_b.removeprefix(MOUNT_POINT)}").split()[0] == lost
    whole(cluster)


def killed_while_it_waits(parted: tuple[Cluster, list[str]]) -> str:
    """A resolution on b that has told DRBD to discard b's copy, and died; the other node cannot come until the link is healed.

    The digest of what b has written.
    """
    cluster, (by_a, by_b, _) = parted
    write(cluster.a, by_a, 256)
    write(cluster.b, by_b, 512)
    lost = digest(cluster.b, by_b)
    splitting.meet(cluster)
    cluster.network.drop(DRBD_PORT)
    splitting.resolve_killed_at(cluster.b, "KEEPER", "--keep", "nodea", "--preserve-to", ASIDE, "--yes")
    return lost


@pytest.mark.soak
def test_what_somebody_writes_after_preserving_is_preserved_as_well(parted: tuple[Cluster, list[str]]) -> None:
    """Nothing of ours brings the storage up meanwhile; what is done by hand is noticed before it would be lost."""
    cluster, _ = parted
    b = cluster.b
    killed_while_it_waits(parted)
    refused = b.sh(f"pvedrbdstor mirror up {STORAGE}", 60)
    assert refused.rc != 0 and "its split brain is being resolved" in refused.out, refused.out
    splitting.intrude(b, "written-after-preserving")
    cluster.network.heal()
    done = resolve(b, "--yes")
    assert done.rc == 0 and "is preserved anew" in done.out, done.out
    again = b.run(f"ls {ASIDE}").split()
    assert len(again) == 2 and "Earlier tries may have left this" in done.out
    assert b.sh(f"tail -c 4096 {ASIDE}/*-2/device.img | grep -qa written-after-preserving").rc == 0
    whole(cluster)


@pytest.mark.soak
def test_a_resolution_that_is_given_up_leaves_both_sides_as_they_were(parted: tuple[Cluster, list[str]]) -> None:
    cluster, (_, by_b, _) = parted
    b = cluster.b
    lost = killed_while_it_waits(parted)
    b.run(f"pvedrbdstor split-brain resolve {STORAGE} --abandon")
    assert "cs:" not in b.run("cat /proc/drbd"), "it still waits for the other node, to discard this copy"
    cluster.network.heal()
    b.run(f"drbdadm up {RESOURCE} && until grep -q cs:StandAlone /proc/drbd; do sleep 0.1; done", 30)
    b.run(f"drbdadm primary {RESOURCE} && mount -t ocfs2 /dev/drbd0 {MOUNT_POINT}", 120)
    assert digest(b, by_b) == lost and show(b)["case"] == "split-brain"
    done = resolve(b, "--keep", "nodea", "--preserve-to", ASIDE, "--yes")
    assert done.rc == 0, done.out
    whole(cluster)


@pytest.mark.soak
def test_a_split_of_more_than_the_dead_time_with_the_other_node_out_of_reach_of_ssh(
    parted: tuple[Cluster, list[str]], results: Results
) -> None:
    """Both have declared each other dead by then. The administrator runs the command on both nodes."""
    cluster, (by_a, by_b, _) = parted
    a, b = cluster.nodes
    b.run("sleep 75", timeout=90)
    write(a, by_a, 256)
    write(b, by_b, 512)
    kept, lost = digest(a, by_a), digest(b, by_b)
    told(cluster, results)
    on_each(cluster.nodes, lambda node: node.run("rm /usr/sbin/ssh"))
    local = a.run(f"pvedrbdstor split-brain show {STORAGE} --local --json")
    (b.share / "a.json").write_text(local)
    said = b.run(f"pvedrbdstor split-brain show {STORAGE}", 60)
    assert "could not be asked" in said and Path(by_b).name in said
    document = json.loads(b.run(f"pvedrbdstor split-brain show {STORAGE} --other /run/lab/a.json --json", 60))
    fates = {f"{MOUNT_POINT}/{change['path']}": change["fate"] for change in document["changes"]}
    assert fates[by_a] == "differs" and fates[by_b] in ("differs", "changed")
    with ThreadPoolExecutor(1) as pool:
        options = ("--keep", "nodea", "--preserve-to", ASIDE, "--other", "/run/lab/a.json", "--yes")
        resolving = pool.submit(resolve, b, *options)
        wait_until(lambda: b.sh(f"grep -q KEEPER {splitting.JOURNAL}/{STORAGE}.json").rc == 0, "b waits for a", 90)
        a.run(f"pvedrbdstor split-brain resolve {STORAGE} --keep nodea")
        done = resolving.result()
    assert done.rc == 0, done.out
    assert digest(b, by_a) == kept and digest(b, by_b) != lost
    assert b.run(f"sha256sum <{preserved(b)}{by_b.removeprefix(MOUNT_POINT)}").split()[0] == lost
    whole(cluster)


@pytest.mark.soak
def test_a_node_that_dies_during_the_resync_goes_on_after_its_boot() -> None:
    """And what it had lies safely aside all the while."""
    with Cluster(memory=320) as cluster:
        a, b = cluster.nodes
        storage.install(cluster.nodes)
        on_each(cluster.nodes, splitting.prepare)
        image = path(a, alloc(a, 100, 64 * MIB))
        write(a, image, 65536)
        a.run("sync")
        splitting.part(cluster)
        write(b, image, 49152)
        kept, lost = digest(a, image), digest(b, image)
        splitting.meet(cluster)
        on_each(cluster.nodes, lambda node: node.run(f"drbdadm disk-options --resync-rate=2M {RESOURCE}"))
        splitting.resolve_killed_at(b, "RESYNC", "--keep", "nodea", "--preserve-to", ASIDE, "--yes")
        assert "cs:SyncTarget" in b.run("cat /proc/drbd")
        b.kill()
        b.start()
        b.wait_ready()
        formation.configure(b, cluster.nodes)
        storage.write_program(b)
        splitting.prepare(b)
        done = resolve(b)
        assert done.rc == 0, done.out
        assert digest(b, image) == digest(a, image) == kept
        assert b.run(f"sha256sum <{preserved(b)}{image.removeprefix(MOUNT_POINT)}").split()[0] == lost
        assert out_of_sync(a) == 0


@pytest.mark.soak
def test_of_one_node_alone_after_both_died_it_says_who_was_last_and_how_to_force_it() -> None:
    """With fencing DRBD calls the copy Consistent and does not go on; then the other node is found to be the older one."""
    with Cluster(memory=320) as cluster:
        a, b = cluster.nodes
        a.run(f"echo before >{MOUNT_POINT}/file && sync -f {MOUNT_POINT}")
        b.kill()
        a.run("until grep -q cs:WFConnection /proc/drbd; do sleep 0.1; done")
        # It may wait for the dead node's locks, which no signal ends: nobody waits for it.
        a.run(
            f"dd if=/dev/urandom of={MOUNT_POINT}/file bs=4k count=1 oflag=direct conv=notrunc status=none </dev/null >/dev/null 2>&1 & "
            "sleep 20"
        )
        a.kill()
        _boot_fenced(a, cluster)
        a.run(f"drbdadm up {RESOURCE} && until grep -q ds:Consistent /proc/drbd; do sleep 0.1; done", 30)
        assert a.sh(f"pvedrbdstor mirror up {STORAGE}", 90).rc == 69
        said = a.run(f"pvedrbdstor split-brain show {STORAGE}", 60)
        assert "DRBD calls this copy Consistent" in said and "both may have gone on" in said, said
        commands = [
            line.strip() for line in said.splitlines() if line.startswith("  ") and ("--force" in line or "up" in line)
        ]
        assert commands == [f"drbdadm primary --force {RESOURCE}", f"pvedrbdstor mirror up {STORAGE} --without-peer"], (
            said
        )
        for command in commands:
            a.run(f"{command} </dev/null", 120)
        a.run(f"echo forced >>{MOUNT_POINT}/file && sync -f {MOUNT_POINT}")
        _boot_fenced(b, cluster)
        b.run(f"drbdadm up {RESOURCE}")
        settled = "grep -qE 'ds:UpToDate/UpToDate|cs:StandAlone' /proc/drbd"
        b.run(f"until {settled}; do sleep 0.2; done", 60)
        if "cs:StandAlone" in b.run(
            "cat /proc/drbd"
        ):  # the forced promotion has overwritten what the two had in common
            assert show(b)["case"] == "unrelated"
            refused = resolve(b, "--keep", "nodea", "--preserve-to", ASIDE, "--yes")
            assert refused.rc == 75 and "no common past" in refused.out, refused.out
            b.run(f"drbdadm invalidate {RESOURCE} && drbdadm connect {RESOURCE}")
            a.sh(f"drbdadm connect {RESOURCE}")
        b.run("until grep -q ds:UpToDate/UpToDate /proc/drbd; do sleep 0.2; done", 90)
        assert show(b)["case"] == "connected" and out_of_sync(a) == 0


def _boot_fenced(node: Node, cluster: Cluster) -> None:
    """Start a node whose DRBD asks a fence-peer handler that never lets it go on."""
    node.start()
    node.wait_ready()
    formation.configure(node, cluster.nodes)
    storage.write_program(node)
    splitting.prepare(node)
    text = node.run(f"cat {RES}")
    for plain, fenced in (("disk {", " fencing resource-and-stonith;"), ("handlers {", ' fence-peer "exit 1";')):
        assert text.count(plain) == 1
        text = text.replace(plain, plain + fenced)
    (node.share / "fenced.res").write_text(text)
    node.run(f"cp {GUEST_SHARE}/fenced.res {RES} && drbdadm dump {RESOURCE} | grep -q resource-and-stonith")
