"""What the storage says of itself on a real cluster: each state within 3 s of the moment the kernel shows it, and back.

And what it costs to ask: nothing waits for frozen I/O, and a split lets those go on that run here.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab import formation, splitting, storage
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.formation import DRBD_PORT, MOUNT_POINT, RESOURCE, STORAGE, wait_whole
from tests.lab.node import Node
from tests.lab.ops import running_op, wait_until
from tests.lab.results import Results
from tests.lab.storage import PluginError, alloc, call, path

MIB = 1 << 20
LIMIT = 3.0  # seconds from the kernel's knowledge to the verdict
QUICK = 2.0  # seconds a call may take while I/O is frozen
DRBD, MOUNTS = "/proc/drbd", "/proc/mounts"
SIGHT_SECONDS = 75
CLIENT = f"""
import json, socket, sys, time
started, client = time.monotonic(), socket.socket(socket.AF_UNIX)
client.connect({storage.SOCKET!r})
client.sendall(sys.argv[1].encode() + bytes([10]))
answer = json.loads(client.makefile().readline())
print(json.dumps(dict(answer, seconds=time.monotonic() - started)))
"""
TABLE = "From the moment DRBD shows a state to the verdict"


@dataclass
class Sighting:
    """seconds: from the kernel's knowledge to the verdict."""

    seconds: float = 0.0
    active: bool = False


@contextmanager
def sighted(node: Node, shown: str, word: str, results: Results | None = None, file: str = DRBD) -> Iterator[Sighting]:
    """What the block does must show up in ``file``, and within LIMIT in the view of the node."""
    words = shlex.join(["/usr/bin/python3", "-m", "tests.lab.guest.sight", file, shown, word])
    sighting = Sighting()
    with ThreadPoolExecutor(1) as pool:
        out = pool.submit(node.run, f"cd {REPOSITORY} && PYTHONPYCACHEPREFIX=/run/pycache exec {words}", SIGHT_SECONDS)
        yield sighting
        answer = json.loads(out.result().splitlines()[-1])
    sighting.seconds, sighting.active = answer["seconds"], answer["active"]
    assert sighting.seconds < LIMIT, f"{word}: {sighting.seconds:.1f} s"
    if results is not None:
        results.row(TABLE, key=("state",), state=word, seconds=f"{sighting.seconds:.2f}")


def kinds(node: Node) -> list[str]:
    """What the node's view has found, the gravest first."""
    verdict = json.loads(node.run(f"cat /run/pvedrbdstor/live/{STORAGE}.json"))["verdict"]
    return [verdict["kind"], *(found["kind"] for found in verdict["also"])]


def ask(node: Node, method: str, storage: str = STORAGE, **params: object) -> tuple[Any, float]:
    """One call of the service alone, without what PVE does before it: the result and its seconds. Raises PluginError."""
    section = {"id": storage, "path": f"/mnt/pve/{storage}", "resource": RESOURCE if storage == STORAGE else storage}
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"storage": section, "timeout": 9, **params}}
    out = node.run(f"/usr/bin/python3 -S -c {shlex.quote(CLIENT)} {shlex.quote(json.dumps(request))}", timeout=30)
    answer = json.loads(out)
    if "error" in answer:
        raise PluginError(answer["error"]["message"])
    return answer["result"], answer["seconds"]


def activate_volume(node: Node, volid: str) -> None:
    """As a backup or `qm showcmd` does. Raises PluginError."""
    ask(node, "activate_volume", volname=volid.partition(":")[2], snap=None)


def _findings(node: Node) -> list[dict[str, Any]]:
    verdict = json.loads(node.run(f"cat /run/pvedrbdstor/live/{STORAGE}.json"))["verdict"]
    return [verdict, *verdict["also"]]


@pytest.fixture(autouse=True)
def settled(volumes: Cluster) -> Iterator[None]:
    """Each test finds and leaves both nodes connected and watched; the lab has no fencing, which is not hidden."""
    for node in volumes.nodes:
        wait_until(lambda node=node: _view_is_there(node) and kinds(node) == ["unprotected"], "a calm view")  # type: ignore[misc]
    try:
        yield
    finally:
        _put_right(volumes)


def _put_right(cluster: Cluster) -> None:
    """Also after a failure, so that it costs the tests behind it nothing; where nothing is to be done nothing is."""
    cluster.network.heal()
    for node in cluster.nodes:
        node.sh(f"grep -q ' s-----$' /proc/drbd && drbdadm resume-io {RESOURCE}")
        node.sh(f"grep -q ' ds:Diskless' /proc/drbd && drbdadm attach {RESOURCE}")
        node.sh(f"grep -q ' {MOUNT_POINT} ocfs2 ro' /proc/mounts && mount -o remount,rw {MOUNT_POINT}")
    splitting.reunite(cluster)
    for node in cluster.nodes:
        if node.sh(f"grep -q ' {MOUNT_POINT} ' /proc/mounts").rc != 0:
            node.sh(f"pvedrbdstor mirror up {STORAGE}", 150)


def _view_is_there(node: Node) -> bool:
    return node.sh(f"test -s /run/pvedrbdstor/live/{STORAGE}.json").rc == 0


def test_suspended_io_is_seen_and_its_end(volumes: Cluster, results: Results) -> None:
    with sighted(volumes.a, "C s-----", "suspended", results) as sighting:
        volumes.a.run(f"drbdadm suspend-io {RESOURCE}")
    assert not sighting.active
    with sighted(volumes.a, "C r-----", "!suspended", results):
        volumes.a.run(f"drbdadm resume-io {RESOURCE}")


def test_nothing_waits_for_frozen_io_and_all_goes_on_after_it(volumes: Cluster, vmid: int) -> None:
    node = volumes.a
    volid = alloc(node, vmid, MIB)
    pid = node.run(f"cat {storage.PID_FILE}")
    with sighted(node, "C s-----", "suspended"):
        node.run(f"drbdadm suspend-io {RESOURCE}")
    try:
        status = call(node, "storage_info", STORAGE)
        assert status.value[STORAGE]["active"] == 0 and status.seconds < QUICK
        for request in (("vdisk_list", STORAGE), ("activate_volumes", [volid]), ("activate_storage", STORAGE)):
            took = node.sh(_refused(request), timeout=20)
            assert took.rc == 0, took.out
    finally:
        with sighted(node, "C r-----", "!suspended"):
            node.run(f"drbdadm resume-io {RESOURCE}")
    assert call(node, "storage_info", STORAGE).value[STORAGE]["active"] == 1
    call(node, "activate_volumes", [volid])
    assert volid in storage.listing(node)
    assert node.run(f"cat {storage.PID_FILE}") == pid and node.sh(f"kill -0 {pid.strip()}").rc == 0


def _refused(request: tuple[object, ...]) -> str:
    """A shell command that succeeds when the call dies with the reason, and quickly."""
    line = json.dumps({"call": request[0], "args": list(request[1:])})
    check = (
        "import json,sys; a=json.loads(sys.stdin.readlines()[-1]); "
        f"sys.exit(0 if 'suspended' in a.get('error','') and a['seconds']<{QUICK} else repr(a))"
    )
    return f"{storage.PLUGIN_COMMAND} <<<{shlex.quote(line)} | /usr/bin/python3 -c {shlex.quote(check)}"


def test_a_second_storage_is_answered_for_at_once_while_the_first_is_frozen(volumes: Cluster) -> None:
    node = volumes.a
    node.run(
        "printf '\\ndrbdocfs2: other\\n\\tpath /mnt/pve/other\\n\\tdrbdocfs2-resource other\\n\\n' >>/etc/pve/storage.cfg"
    )
    try:
        wait_until(lambda: node.sh("test -s /run/pvedrbdstor/live/other.json").rc == 0, "the other storage is watched")
        with sighted(node, "C s-----", "suspended"):
            node.run(f"drbdadm suspend-io {RESOURCE}")
        for name in ("other", STORAGE) * 3:
            result, seconds = ask(node, "status", storage=name)
            assert result["active"] is False and seconds < QUICK
    finally:
        with sighted(node, "C r-----", "!suspended"):
            node.run(f"drbdadm resume-io {RESOURCE}")
        node.run("sed -i '/^drbdocfs2: other/,/^$/d' /etc/pve/storage.cfg")


def test_a_lost_disk_is_seen_on_both_nodes_and_so_is_the_resync(volumes: Cluster, results: Results) -> None:
    a, b = volumes.nodes
    for node in volumes.nodes:
        node.run(f"drbdadm disk-options --resync-rate=8M {RESOURCE}")
    with sighted(a, r"ds:UpToDate/Diskless", "degraded", results), sighted(b, r"ds:Diskless", "degraded") as sighting:
        b.run(f"drbdadm detach {RESOURCE}")
    assert sighting.active
    a.run(f"dd if=/dev/urandom of={MOUNT_POINT}/ballast bs=1M count=48 oflag=direct 2>&1", timeout=60)
    with sighted(a, "cs:SyncSource", "cause:A resync to", results), sighted(b, "cs:SyncTarget", "cause:A resync from"):
        b.run(f"drbdadm attach {RESOURCE}")
    for node in volumes.nodes:
        node.run(f"drbdadm disk-options --resync-rate=200M {RESOURCE}")
    with sighted(b, r"ds:UpToDate/UpToDate", "!degraded", results):
        pass
    a.run(f"rm {MOUNT_POINT}/ballast")


FAULTS = "/sys/module/drbd/parameters"
DATA_WRITES = 1 << 4  # DRBD_FAULT_DT_WR (drivers/block/drbd/drbd_int.h)


def test_a_disk_that_fails_is_seen_and_the_storage_goes_on_through_the_peer(volumes: Cluster, results: Results) -> None:
    a, b = volumes.nodes
    if a.sh(f"test -e {FAULTS}/enable_faults").rc != 0:
        pytest.skip("this kernel's DRBD cannot make its disk fail")
    with sighted(a, "ds:Diskless/UpToDate", "cause:This node's disk is Diskless", results) as sighting:
        a.run(f"cd {FAULTS} && echo 100 >fault_rate && echo {DATA_WRITES} >enable_faults")  # o2hb writes every 2 s
    assert sighting.active
    a.run(
        f"echo 0 >{FAULTS}/enable_faults; echo on >{MOUNT_POINT}/through-the-peer && sync {MOUNT_POINT}/through-the-peer"
    )
    assert b.run(f"cat {MOUNT_POINT}/through-the-peer && rm {MOUNT_POINT}/through-the-peer") == "on\n"
    with sighted(a, "ds:UpToDate/UpToDate", "!degraded"):
        a.run(f"drbdadm attach {RESOURCE}")


def test_a_peer_that_left_in_order_is_no_rival(volumes: Cluster, results: Results) -> None:
    """Down, and back; then Secondary and disconnected by hand (StandAlone without a split brain)."""
    a, b = volumes.nodes
    with sighted(a, "cs:WFConnection", "cause:was not writing when it left", results) as sighting:
        b.run(f"pvedrbdstor mirror down {STORAGE} --stop", timeout=90)
    assert sighting.active
    b.run(f"pvedrbdstor mirror up {STORAGE} && pvedrbdstor mirror down {STORAGE}", timeout=150)
    wait_whole(volumes.nodes)
    with sighted(a, "cs:StandAlone", "degraded", results) as sighting:
        a.run(f"drbdadm disconnect {RESOURCE}")
    assert sighting.active and "split-brain" not in kinds(a)
    a.run(f"drbdadm connect {RESOURCE}")
    b.run(f"pvedrbdstor mirror up {STORAGE}", timeout=150)
    wait_whole(volumes.nodes)


def test_a_verify_is_mentioned_while_it_runs(volumes: Cluster, results: Results) -> None:
    volumes.a.run(f"drbdadm disk-options --resync-rate=200M {RESOURCE}")
    with sighted(volumes.a, "cs:VerifyS", "note:An online verify", results):
        volumes.a.run(f"drbdadm verify {RESOURCE}")
    with sighted(volumes.a, "cs:Connected", "!note:An online verify"):
        pass


def test_copies_that_a_verify_found_different_are_put_right_as_told(volumes: Cluster, results: Results) -> None:
    """Three blocks of b's disk are changed behind DRBD's back, where the file system has nothing."""
    a, b = volumes.nodes
    b.run(
        f"dd if=/dev/urandom of=$(drbdadm sh-ll-dev {RESOURCE}) bs=4096 seek={900 * MIB // 4096} count=3 "
        "oflag=direct conv=notrunc status=none"
    )
    with sighted(a, "oos:12$", "cause:The two copies differ in 12 KiB", results) as sighting:
        a.run(f"drbdadm verify {RESOURCE}")
    assert sighting.active
    a.run("until grep -q cs:Connected /proc/drbd; do sleep 0.2; done")
    told = next(found["remedy"] for found in _findings(a) if "copies differ" in found["cause"])
    commands = re.findall(r"'(pvedrbdstor [^']*)'", told)
    assert [command.split()[2] for command in commands] == ["down", "up"]
    with sighted(a, "oos:0$", "!cause:The two copies differ"):
        for command in commands:
            b.run(command, timeout=150)
    wait_whole(volumes.nodes)
    a.run(f"drbdadm verify {RESOURCE}; until grep -q cs:Connected /proc/drbd; do sleep 0.2; done", timeout=60)
    assert "oos:0" in a.run("cat /proc/drbd")


def test_a_read_only_file_system_is_seen(volumes: Cluster, results: Results) -> None:
    with sighted(volumes.b, f"{MOUNT_POINT} ocfs2 ro", "read-only", results, MOUNTS) as sighting:
        volumes.b.run(f"mount -o remount,ro {MOUNT_POINT}")
    assert not sighting.active
    with sighted(volumes.b, f"{MOUNT_POINT} ocfs2 rw", "!read-only", file=MOUNTS):
        volumes.b.run(f"mount -o remount,rw {MOUNT_POINT}")


def test_an_unmounted_storage_is_not_up_and_refuses_volumes(volumes: Cluster, vmid: int, results: Results) -> None:
    volid = alloc(volumes.a, vmid, MIB)
    with sighted(volumes.b, f"!{MOUNT_POINT} ocfs2", "not-up", results, MOUNTS):
        volumes.b.run(f"umount {MOUNT_POINT}")
    assert ask(volumes.b, "status")[0]["active"] is False
    with pytest.raises(PluginError, match="nothing is mounted"):
        activate_volume(volumes.b, volid)
    with sighted(volumes.b, f"{MOUNT_POINT} ocfs2", "!not-up", results, MOUNTS):
        formation.mount(volumes.b)


def test_a_cut_link_and_a_split_brain_are_seen_and_only_guests_that_run_here_go_on(
    volumes: Cluster, vmid: int, results: Results
) -> None:
    a, b = volumes.nodes
    running, stopped = alloc(a, vmid, MIB), alloc(a, vmid + 1, MIB)
    for volid in (running, stopped):
        activate_volume(b, volid)  # what a wrote is on both disks
    with running_op(a, "lock_as_qemu", path(a, running)):
        wait_until(lambda: bool(_in_use(a)), "the running guest's image counts as in use")
        with sighted(a, "cs:WFConnection", "degraded", results), sighted(b, "cs:WFConnection", "degraded"):
            volumes.network.drop(DRBD_PORT)
        for volid, node in ((stopped, a), (running, b), (stopped, b)):
            with pytest.raises(PluginError, match="only guests that were running here"):
                activate_volume(node, volid)
        activate_volume(a, running)
        splitting.meet(volumes)  # how soon each of them tells it, also the one that is hung up on: test_split_brain.py
        for node in volumes.nodes:
            wait_until(lambda node=node: "split-brain" in kinds(node), f"a split brain on {node.name}")  # type: ignore[misc]
        assert _active(a)
        activate_volume(a, running)
    activate_volume(a, running)  # stopped meanwhile: it may be started again
    with pytest.raises(PluginError, match="split-brain"):
        activate_volume(b, running)
    _settle_split(volumes, results)
    activate_volume(b, running)


def _active(node: Node) -> bool:
    return bool(json.loads(node.run(f"cat /run/pvedrbdstor/live/{STORAGE}.json"))["verdict"]["active"])


def _in_use(node: Node) -> list[int]:
    found = json.loads(node.run(f"cat /run/pvedrbdstor/live/{STORAGE}.json"))["in_use"]["inodes"]
    assert isinstance(found, list)
    return found


def _settle_split(cluster: Cluster, results: Results) -> None:
    """Keep a's copy, as the verdict and docs/verdicts.md tell to."""
    a, b = cluster.nodes
    b.run(f"pvedrbdstor mirror down {STORAGE}", timeout=90)
    b.run(f"drbdadm disconnect {RESOURCE} 2>/dev/null; drbdadm connect --discard-my-data {RESOURCE}")
    with sighted(a, "ds:UpToDate/UpToDate", "!split-brain", results):
        a.run(f"grep -q cs:StandAlone /proc/drbd && drbdadm connect {RESOURCE} || true")
    b.run(f"pvedrbdstor mirror up {STORAGE}", timeout=150)
    wait_whole(cluster.nodes)


@pytest.mark.soak
def test_a_peer_that_was_killed_is_seen_and_its_return(volumes: Cluster, results: Results) -> None:
    a, b = volumes.nodes
    with sighted(a, "cs:WFConnection", "degraded", results):
        b.kill()
    volumes.rejoin(b)
    storage.install([b])
    wait_until(lambda: kinds(a) == ["unprotected"], "the peer counts as back", timeout=60)


@pytest.mark.soak
def test_a_freeze_by_fencing_is_seen_and_its_end(volumes: Cluster, results: Results) -> None:
    a, b = volumes.nodes
    for node in volumes.nodes:
        node.run("drbdsetup disk-options 0 --fencing=resource-and-stonith")
    try:
        with sighted(a, "cs:WFConnection.* s-----", "suspended", results):
            volumes.network.drop(DRBD_PORT)
        for request in (("vdisk_list", STORAGE), ("activate_storage", STORAGE)):
            took = a.sh(_refused(request), timeout=20)
            assert took.rc == 0, took.out
        with sighted(a, "cs:Connected.* r-----", "!suspended", results):
            volumes.network.heal()
    finally:
        for node in volumes.nodes:
            node.run("drbdsetup disk-options 0 --fencing=dont-care")
    wait_until(lambda: kinds(b) == ["unprotected"], "calm on the other node")
