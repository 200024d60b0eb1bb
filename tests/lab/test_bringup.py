"""Activation from nothing: what it brings up, how long that takes, and what it refuses to bring up.

Each test begins with both nodes mounted by activation alone, whatever the test before has left.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.lab import formation, storage
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT, RESOURCE, STORAGE, on_each
from tests.lab.node import Node
from tests.lab.storage import PLUGIN_COMMAND, Answer, PluginError, call

HEARTBEAT_SECONDS = 15
"""What an OCFS2 mount in a cluster may take; nothing shortens its disk heartbeat."""
OWN_SECONDS = 5
RES_FILE = f"/etc/drbd.d/{RESOURCE}.res"
HOLD = f"/run/pvedrbdstor/bringup/{STORAGE}.down"


@pytest.fixture(scope="module")
def unformed() -> Iterator[Cluster]:
    with Cluster(formed=False, memory=512) as cluster:  # ten callers at once need more than two
        storage.install(cluster.nodes)
        yield cluster


@pytest.fixture
def cluster(unformed: Cluster) -> Cluster:
    """Both nodes up, by hand, as that forgets a refusal that was just given; and in sync."""
    unformed.network.heal()
    on_each(unformed.nodes, lambda node: node.run(f"pvedrbdstor mirror up {STORAGE}", 150))
    unformed.a.run("until grep -q 'ds:UpToDate/UpToDate' /proc/drbd; do sleep 0.2; done", 120)
    return unformed


@pytest.fixture
def b_down(unformed: Cluster) -> Cluster:
    """Node a up, everything of b's down: where a refusal leaves it."""
    unformed.network.heal()
    unformed.a.run(f"pvedrbdstor mirror up {STORAGE}", 150)
    stop(unformed.b)
    return unformed


WRITER = f"""
import os, time
fd, longest, end = os.open("{MOUNT_POINT}/writer", os.O_CREAT | os.O_WRONLY), 0.0, time.monotonic() + 8
while time.monotonic() < end:
    began = time.monotonic()
    os.pwrite(fd, b"x" * 4096, 0)
    os.fsync(fd)
    longest = max(longest, time.monotonic() - began)
    time.sleep(0.02)
print(longest)
"""


def until_up(node: Node, seconds: float = 150) -> float:
    """Activate as Proxmox does, again and again while it is still coming up: the seconds it took."""
    started = time.monotonic()
    while True:
        try:
            call(node, "activate_storage", STORAGE)
            return time.monotonic() - started
        except PluginError as error:
            if "still coming up" not in str(error) or time.monotonic() - started > seconds:
                raise


def limit() -> float:
    """Seconds that an activation may take from cold: as many times more as this machine has more to do than it can."""
    return (HEARTBEAT_SECONDS + OWN_SECONDS) * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def refusal(node: Node) -> str:
    """What activation says that refuses; the second answer comes at once, from memory."""
    with pytest.raises(PluginError, match=f"Storage '{STORAGE}' is not brought up: ") as raised:
        until_up(node, 60)
    print(f"\n  {raised.value}")
    with pytest.raises(PluginError, match="is not brought up: ") as again:
        started = time.monotonic()
        call(node, "activate_storage", STORAGE)
    assert time.monotonic() - started < 3
    assert str(again.value) == str(raised.value)
    assert not mounted(node)
    return str(raised.value)


def mounted(node: Node) -> bool:
    return node.sh(f"mountpoint -q {MOUNT_POINT}").rc == 0


def stop(node: Node) -> None:
    """Everything down, as after a boot; not held down."""
    node.run(f"pvedrbdstor mirror down {STORAGE} --stop && rm {HOLD}")


def role(node: Node) -> str:
    return node.run(f"drbdadm role {RESOURCE}").split("/")[0].strip()


def mounts_so_far(node: Node) -> int:
    return int(node.run("dmesg | grep -c 'ocfs2: Mounting device' || true"))


def activate_as_pvestatd(node: Node) -> Answer:
    """The plugin goes by the name of the process that it is in."""
    command = PLUGIN_COMMAND.replace(f"{REPOSITORY}/tests/lab/guest/plugin.pl", "/run/pvestatd")
    request = json.dumps({"call": "activate_storage", "args": [STORAGE]})
    out = node.run(f"ln -sf {REPOSITORY}/tests/lab/guest/plugin.pl /run/pvestatd && {command} <<'END'\n{request}\nEND")
    answer = json.loads(out)
    return Answer([answer.get("error")], answer["seconds"])


def test_one_activation_per_node_brings_two_booted_nodes_up(unformed: Cluster) -> None:
    for node in unformed.nodes:
        assert "r0" not in node.run("drbdsetup events2 --now")
        assert not mounted(node)
    answers = on_each(unformed.nodes, lambda node: call(node, "activate_storage", STORAGE))
    for node, answer in zip(unformed.nodes, answers, strict=True):
        last = json.loads(node.run(f"cat /run/pvedrbdstor/bringup/{STORAGE}.json"))
        mounting = last["finished"] - last["since"]
        print(f"\n  cold to mounted on {node.name}: {answer.seconds:.1f} s, of which the mount {mounting:.1f} s")
        assert last["step"] == "mounting the file system"
    for node, answer in zip(unformed.nodes, answers, strict=True):
        assert answer.seconds < limit()
        options = node.run(f"findmnt -no OPTIONS {MOUNT_POINT}")
        assert all(option in options for option in ("noatime", "data=ordered", "errors=remount-ro"))
        assert node.run("cat /sys/kernel/config/cluster/pve/heartbeat/dead_threshold").strip() == "31"
    unformed.a.run(f"echo shared >{MOUNT_POINT}/seen")
    assert unformed.b.run(f"cat {MOUNT_POINT}/seen") == "shared\n"


def test_ten_activations_at_once_do_the_work_once(cluster: Cluster) -> None:
    stop(cluster.b)
    before = mounts_so_far(cluster.b)
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: call(cluster.b, "activate_storage", STORAGE), range(10)))
    print(f"\n  ten at once: {max(answer.seconds for answer in answers):.1f} s for the last")
    assert mounted(cluster.b)
    assert mounts_so_far(cluster.b) == before + 1
    assert cluster.b.run("pgrep -fc 'mirror up' || true").strip() == "0"


def test_pvestatd_is_told_within_two_seconds_that_it_is_still_coming_up_and_later_that_it_is_up(
    cluster: Cluster,
) -> None:
    stop(cluster.b)
    answer = activate_as_pvestatd(cluster.b)
    print(f"\n  {answer.value}")
    assert "is still coming up" in answer.value
    assert answer.seconds < 2.5
    assert call(cluster.b, "activate_storage", STORAGE).seconds < limit()
    assert activate_as_pvestatd(cluster.b).value is None


def test_a_node_that_lost_its_power_comes_back_by_activation_alone(cluster: Cluster) -> None:
    a, b = cluster.nodes
    b.kill()
    time.sleep(15)  # until DRBD has noticed: what is written now is written to one copy
    a.run(f"dd if=/dev/urandom of={MOUNT_POINT}/meanwhile bs=1M count=64 oflag=direct 2>/dev/null", 120)
    digest = a.run(f"md5sum <{MOUNT_POINT}/meanwhile")
    started = time.monotonic()
    b.start()
    b.wait_ready()
    formation.configure(b, cluster.nodes)
    storage.install([b])
    booted = time.monotonic() - started
    print(f"\n  after the loss of power: booted in {booted:.1f} s, mounted {until_up(b):.1f} s later")
    assert b.run(f"md5sum <{MOUNT_POINT}/meanwhile") == digest
    b.run("until grep -q 'ds:UpToDate/UpToDate' /proc/drbd; do sleep 0.2; done", 60)
    assert "oos:0" in b.run("cat /proc/drbd")


def test_a_storage_in_use_stays_up_and_the_user_is_named(cluster: Cluster) -> None:
    node = cluster.b
    node.run(f"exec 9>{MOUNT_POINT}/open; sleep 60 & echo $! >/run/holder")
    pid = node.run("cat /run/holder").strip()
    result = node.sh(f"pvedrbdstor mirror down {STORAGE}")
    node.run(f"kill {pid}; rm {MOUNT_POINT}/open")
    print(f"\n  {result.out.strip()}")
    assert result.rc == 75
    assert f"in use by sleep (process {pid})" in result.out
    assert mounted(node)
    assert call(node, "activate_storage", STORAGE).seconds < 2


def test_what_an_administrator_took_down_stays_down_until_they_say_so(cluster: Cluster) -> None:
    cluster.b.run(f"pvedrbdstor mirror down {STORAGE}")
    assert "cs:Connected ro:Secondary/Primary ds:UpToDate/UpToDate" in cluster.b.run("cat /proc/drbd")
    assert "an administrator took it down" in refusal(cluster.b)
    cluster.b.run(f"pvedrbdstor mirror up {STORAGE}")
    assert mounted(cluster.b)


# --- what is refused -----------------------------------------------------------------------------------------------


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


def test_a_peer_that_was_never_seen_is_not_taken_for_dead(cluster: Cluster) -> None:
    stop(cluster.b)  # first, so that the copy which goes on alone is the newest
    stop(cluster.a)
    cluster.network.cut()
    said = refusal(cluster.a)
    assert re.search("the other node cannot be reached .*no fencing is configured.*mirror up ha --without-peer", said)
    assert role(cluster.a) == "Secondary"
    cluster.a.run(f"pvedrbdstor mirror up {STORAGE} --without-peer", 120)
    cluster.a.run(f"echo alone >{MOUNT_POINT}/alone")
    cluster.network.heal()
    until_up(cluster.b)
    assert cluster.b.run(f"cat {MOUNT_POINT}/alone") == "alone\n"


def test_copies_that_have_diverged_are_not_mounted_and_the_way_out_works_as_told(cluster: Cluster) -> None:
    a, b = cluster.nodes
    on_each(cluster.nodes, stop)
    cluster.network.cut()
    for node in cluster.nodes:
        node.run(f"pvedrbdstor mirror up {STORAGE} --without-peer && echo x >{MOUNT_POINT}/only-on-{node.name}", 120)
    on_each(cluster.nodes, stop)
    cluster.network.heal()
    said = on_each(cluster.nodes, refusal)
    assert any("a split brain" in text and "split-brain show" in text for text in said)
    b.run(
        f"pvedrbdstor mirror down {STORAGE}; drbdadm disconnect {RESOURCE}; drbdadm connect --discard-my-data {RESOURCE}"
    )
    a.sh(f"drbdadm connect {RESOURCE}")
    on_each(cluster.nodes, lambda node: node.run(f"pvedrbdstor mirror up {STORAGE}", 150))
    for node in cluster.nodes:
        assert node.run(f"cd {MOUNT_POINT} && ls -d only-on-*").split() == ["only-on-a"]


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


@contextmanager
def fenced(nodes: Sequence[Node]) -> Iterator[None]:
    """With the policy that freezes I/O, and a handler that tells of its call and fences nobody; afterwards without."""
    for node in nodes:
        node.run(f"""set -e
cp {RES_FILE} /run/unfenced.res
sed -i -e 's/disk {{ on-io-error/disk {{ fencing resource-and-stonith; on-io-error/' \\
    -e '1a handlers {{ fence-peer /run/fence-peer; }}' {RES_FILE}
printf '#!/bin/sh\\necho called >>/run/fenced\\nexit 1\\n' >/run/fence-peer
chmod +x /run/fence-peer
rm -f /run/fenced""")
    try:
        yield
    finally:
        on_each(nodes, lambda node: node.run(f"cp /run/unfenced.res {RES_FILE}"))


def test_with_fencing_drbd_decides_whether_to_go_on_alone(cluster: Cluster) -> None:
    a = cluster.a
    stop(cluster.b)  # first, so that the copy which goes on alone is the newest
    stop(a)
    with fenced(cluster.nodes):
        cluster.network.cut()
        assert "could not make sure that the other node does not write" in refusal(a)
        assert "called" in a.run("cat /run/fenced")
        a.run("printf '#!/bin/sh\\nexit 7\\n' >/run/fence-peer")
        a.run(f"pvedrbdstor mirror up {STORAGE}", 150)
        assert "ds:UpToDate/Outdated" in a.run("cat /proc/drbd")
        status = a.run(f"pvedrbdstor mirror status {STORAGE}")
        assert "split-brain" not in status and "holds a copy known as Outdated" in status
        stop(a)


def test_a_planned_stop_fences_nobody_and_the_other_node_writes_on(cluster: Cluster) -> None:
    """What pvedrbdstor-mirrors.service runs at shutdown."""
    a, b = cluster.nodes
    with fenced(cluster.nodes):
        on_each(cluster.nodes, lambda node: node.run(f"drbdadm adjust {RESOURCE}"))
        try:
            with ThreadPoolExecutor(1) as pool:
                writer = pool.submit(a.run, f"/usr/bin/python3 -c {shlex.quote(WRITER)}", 60)
                b.run("pvedrbdstor mirror down --all --stop", 60)
                longest = float(writer.result())
            assert longest < 4.0, f"writes on the node that stays stood still for {longest:.1f} s"
            assert "cs:WFConnection ro:Primary/Unknown ds:UpToDate/Outdated" in a.run("cat /proc/drbd")
            for node in cluster.nodes:
                assert node.sh("cat /run/fenced").rc != 0, "the handler was called"
        finally:
            b.run(f"rm -f {HOLD}")
    a.run(f"drbdadm adjust {RESOURCE}")
