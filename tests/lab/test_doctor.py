"""`pvedrbdstor doctor` on the real cluster: nothing where all is well, each thing that is broken on purpose, and nothing again once its own
remedy was followed. Many things are broken at once: each look costs the lab's slow processors some seconds."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterator

import pytest

from tests.lab import splitting, storage
from tests.lab.cluster import Cluster
from tests.lab.corosync import Witness
from tests.lab.doctoring import GUESTS, NEVER_COMPARED, doctor, prepare, settle
from tests.lab.formation import MOUNT_POINT, RESOURCE, STORAGE, on_each
from tests.lab.ops import wait_until
from tests.lab.protection import Protection
from tests.lab.results import Results
from tests.lab.trial import running

RECORD = f"/var/lib/pvedrbdstor/verify/last/{STORAGE}.json"
RES_FILE = f"/etc/drbd.d/{RESOURCE}.res"
CONF, DEFAULTS = "/etc/ocfs2/cluster.conf", "/etc/default/o2cb"
KERNEL = "/boot/vmlinuz-6.99.0-lab"


@pytest.fixture
def pair(volumes: Cluster) -> Iterator[Cluster]:
    """The shared cluster as an administrator should have it: nodes that reach each other, vendors' scripts masked."""
    prepare(volumes)
    yield volumes


def test_what_is_well_has_no_finding(pair: Cluster) -> None:
    began = time.monotonic()
    found = doctor(pair.a)
    seconds = time.monotonic() - began
    print(f"\n  a healthy pair was looked at in {seconds:.1f} s")
    assert set(found) <= NEVER_COMPARED, found
    assert seconds < 10 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.mark.soak
def test_the_hint_of_a_new_pair_is_cleared_by_its_command(pair: Cluster) -> None:
    a = pair.a
    a.run(f"rm -f {RECORD}")
    fresh = doctor(a)
    assert set(fresh) == NEVER_COMPARED, fresh
    a.run(fresh["verify-never"]["commands"][0], 120)
    assert doctor(a) == {}


def test_many_things_broken_at_once_are_found_and_cleared(pair: Cluster, vmid: int) -> None:
    a, b = pair.nodes
    orphan, unnamed = storage.alloc(a, vmid, 1 << 20), storage.alloc(a, 100, 1 << 20)
    a.run(f"drbdadm disk-options --resync-rate=1k --md-flushes=no {RESOURCE} && touch {KERNEL}")
    a.run(f"echo 'scsi0: {STORAGE}:100/vm-100-disk-7.raw,cache=unsafe,size=4G' >{GUESTS}/100.conf")
    a.run(f"echo 'scsi1: {STORAGE}:100/vm-100-disk-8.raw,cache=writeback,aio=native' >>{GUESTS}/100.conf")
    a.run(
        rf"sed -i 's/^\tcontent images/\tpreallocation falloc\n&/' /etc/pve/storage.cfg; mount -o remount,coherency=buffered,errors=panic {MOUNT_POINT}"
    )
    b.run(f"cp -p {RES_FILE} {CONF} {DEFAULTS} /root/ && sed -i 's/ping-int 5/ping-int 6/' {RES_FILE}")
    b.run(f"sed -i 's/ip_port = 7777/ip_port = 7778/' {CONF} && sed -i 's/THRESHOLD=31/THRESHOLD=41/' {DEFAULTS}")
    b.run("pvedrbdstor vendor-units unmask && ip link set vec0 mtu 1400 && date -s '+20 seconds'")
    try:
        found = doctor(a)
    finally:
        a.run(
            f"rm {GUESTS}/100.conf; sed -i '/preallocation/d' /etc/pve/storage.cfg; mount -o remount,coherency=full,errors=remount-ro {MOUNT_POINT}; rm {KERNEL}"
        )
        b.run(
            f"cd /root && mv {RESOURCE}.res {RES_FILE} && mv cluster.conf {CONF} && mv o2cb {DEFAULTS}; date -s @$(( $(date +%s) - 20 ))"
        )
    assert set(found) - NEVER_COMPARED == {
        *("drbd-config-differs", "drbd-config-not-in-force", "drbd-resync-slow"),
        *("o2cb-conf-differs", "o2cb-conf-not-in-force", "o2cb-timeouts-not-in-force"),
        *("kernel-no-module", "fault-ocfs2-credits", "vendor-unmasked", "mount-coherency", "mount-errors"),
        *("drbd-flushes-off", "network-mtu-differs", "clock-skew", "volume-orphaned", "volume-unreferenced"),
        *("volume-missing", "guest-cache-unsafe", "guest-aio-native"),
    }, found
    assert "net ping-int is 5 on nodea and 6 on nodeb" in found["drbd-config-differs"]["meaning"]
    assert "100/vm-100-disk-7.raw" in found["volume-missing"]["title"]
    assert "6.99.0-lab" in found["kernel-no-module"]["title"]
    # by what each of them prints; what was a file, or is Proxmox's own command, was put back above
    a.run(found["drbd-config-not-in-force"]["commands"][0])
    b.run(found["drbd-config-differs"]["commands"][0])
    b.run(found["vendor-unmasked"]["commands"][0])
    a.run(found["network-mtu-differs"]["commands"][0])
    (free,) = found["volume-orphaned"]["commands"]
    assert free == f"pvedrbdstor volume free {orphan}"
    a.run(f"{free} --yes && pvedrbdstor volume free {unnamed} --yes")
    left = doctor(a)
    on_each(pair.nodes, lambda node: node.run("ip link set vec0 mtu 1500"))
    assert set(left) <= NEVER_COMPARED, left


def test_another_node_that_does_not_answer_is_told_and_all_else_is_looked_at(pair: Cluster) -> None:
    pair.a.run(
        "mv /usr/sbin/ssh /usr/sbin/ssh.kept; printf '#!/bin/sh\\necho no route to host >&2; exit 255\\n' >/usr/sbin/ssh; chmod +x /usr/sbin/ssh"
    )
    try:
        found = doctor(pair.a)
    finally:
        pair.a.run("mv /usr/sbin/ssh.kept /usr/sbin/ssh")
    assert set(found) - NEVER_COMPARED == {"node-silent"}
    assert "no route to host" in found["node-silent"]["meaning"]


@pytest.mark.soak
def test_frozen_io_is_told_in_time_with_the_command_that_ends_it(pair: Cluster) -> None:
    """What cannot be read then is told, too, and nothing waits for it."""
    a = pair.a
    a.run(f"drbdadm suspend-io {RESOURCE}")
    # and not for long: OCFS2 resets a node whose disk heartbeat stands still for 60 s
    try:
        a.run(f"until grep -q suspended /run/pvedrbdstor/live/{STORAGE}.json; do sleep 0.1; done", 20)
        found = doctor(a, "--local")
        assert found["mirror-suspended"]["commands"] == [f"drbdadm resume-io {RESOURCE}"]
    finally:
        a.run(f"drbdadm resume-io {RESOURCE}")
    wait_until(lambda: set(doctor(a, "--local")) <= NEVER_COMPARED, "all is well again")


@pytest.mark.soak
def test_words_for_people(pair: Cluster) -> None:
    result = pair.b.sh("pvedrbdstor doctor", 60)
    print(result.out)
    assert result.rc == 2 and result.out.startswith("ERROR: ")
    assert "What it means: " in result.out and "What helps: " in result.out
    assert "Looked at on nodeb" in result.out


@pytest.mark.soak
def test_a_report_has_both_nodes_and_no_secret(pair: Cluster) -> None:
    """Planted in DRBD's configuration on both nodes, in storage.cfg, and where nothing says what it is: in a log."""
    a = pair.a
    secret, password = "correct horse battery", "hunter2-of-the-store"
    for node in pair.nodes:
        node.run(f"cp -p {RES_FILE} /root/ && sed -i 's/verify-alg crc32c;/& shared-secret \"{secret}\";/' {RES_FILE}")
        node.run(
            f"cp -p /etc/pve/storage.cfg /root/ && printf '\\ncifs: other\\n\\tpassword {password}\\n' >>/etc/pve/storage.cfg"
        )
        node.run(f"echo 'drbd: is it {secret}?' >/dev/kmsg")
    try:
        out = a.run("rm -rf /run/report && mkdir /run/report && cd /run/report && pvedrbdstor report --json", 90)
    finally:
        for node in pair.nodes:
            node.run(f"mv /root/{RESOURCE}.res {RES_FILE} && mv /root/storage.cfg /etc/pve/")
    answer = json.loads(out[out.index("{") :])
    assert a.run(f"stat -c %a {answer['path']}").strip() == "600"
    a.run(f"cd /run/report && tar xzf {answer['path']}")
    contents = set(answer["contents"])
    for name in ("etc/drbd.d/r0.res", "drbd/events.txt", "log/kernel.txt", "etc/ocfs2/cluster.conf", "facts.json"):
        assert {f"nodea/{name}", f"nodeb/{name}"} <= contents, contents
    assert "doctor.txt" in contents
    for planted in (secret, password):
        assert a.sh(f"grep -rF {shlex.quote(planted)} /run/report/*/").rc == 1
    assert "shared-secret (left out)" in a.run("cat /run/report/*/nodeb/etc/drbd.d/r0.res")
    assert "drbd: is it (left out)?" in a.run("cat /run/report/*/nodeb/log/kernel.txt")


@pytest.mark.soak
def test_a_protected_pair_has_no_finding_at_all(results: Results) -> None:
    """With corosync, a third vote, the guard and DRBD's fencing, as an administrator should have it."""
    with running(Protection(), Witness()) as trial:
        nodes = trial.cluster.nodes
        on_each(nodes, splitting.prepare)
        on_each(nodes, lambda node: node.run(f"mkdir -p {GUESTS} && pvedrbdstor vendor-units mask"))
        wait_until(lambda: all(trial.protection.ready(node) for node in nodes), "both guards are ready", timeout=60)
        trial.node("a").run(f"pvedrbdstor verify {STORAGE}", 120)
        told = f"pvedrbdstor mirror status {STORAGE}"
        wait_until(
            lambda: all(f"{STORAGE}: healthy" in node.sh(told).out for node in nodes), "the monitor has looked", 60
        )
        for node in nodes:
            began = time.monotonic()
            result = node.sh("pvedrbdstor doctor", 60)
            seconds = f"{time.monotonic() - began:.1f}"
            results.row("pvedrbdstor doctor on a healthy pair", key=("node",), node=f"node{node.name}", seconds=seconds)
            assert result.rc == 0 and result.out.startswith("Nothing found"), result.out


@pytest.mark.soak
def test_an_unmounted_storage_and_its_folder(pair: Cluster) -> None:
    """Not immutable, then filled; cleared by what is printed."""
    a = pair.a
    a.run(f"pvedrbdstor mirror down {STORAGE}; chattr -i {MOUNT_POINT}", 60)
    try:
        found = doctor(a, "--local")
        assert {"mirror-not-up", "mount-point-mutable"} <= set(found), found
        a.run(found["mount-point-mutable"]["commands"][0])
        assert "mount-point-mutable" not in doctor(a, "--local")
        a.run(f"chattr -i {MOUNT_POINT} && touch {MOUNT_POINT}/backup")
        filled = doctor(a, "--local")["mount-point-filled"]
        for command in filled["commands"]:
            a.run(command)
        assert "mount-point-filled" not in doctor(a, "--local")
    finally:
        a.run(f"chattr -i {MOUNT_POINT}; rm -f {MOUNT_POINT}/backup; pvedrbdstor mirror up {STORAGE}", 150)
    settle(pair)
