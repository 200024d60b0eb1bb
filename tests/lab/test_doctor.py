"""`pvedrbdstor doctor` on the real cluster: nothing where all is well, each thing that is broken on purpose, and nothing again once its own
remedy was followed. Many things are broken at once: each look costs the lab's slow processors some seconds."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator

import pytest

from tests.lab import splitting
from tests.lab.cluster import Cluster
from tests.lab.corosync import Witness
from tests.lab.doctoring import GUESTS, NEVER_COMPARED, RES_FILE, doctor, prepare
from tests.lab.formation import MOUNT_POINT, RESOURCE, STORAGE, on_each
from tests.lab.node import Node
from tests.lab.ops import wait_until
from tests.lab.protection import Protection
from tests.lab.results import Results
from tests.lab.trial import running

RECORD = f"/var/lib/pvedrbdstor/verify/last/{STORAGE}.json"
CONF, DEFAULTS = "/etc/ocfs2/cluster.conf", "/etc/default/o2cb"
KERNEL = "/boot/vmlinuz-6.99.0-lab"


@pytest.fixture
def pair(volumes: Cluster) -> Iterator[Cluster]:
    """The shared cluster as an administrator should have it: nodes that reach each other, vendors' scripts masked, metadata saved."""
    prepare(volumes)
    yield volumes


def test_what_is_well_has_no_finding_and_nothing_is_changed(pair: Cluster) -> None:
    before = on_each(pair.nodes, all_that_is_kept)
    found = doctor(pair.a)
    assert set(found) <= NEVER_COMPARED, found
    assert on_each(pair.nodes, all_that_is_kept) == before


def all_that_is_kept(node: Node) -> str:
    """Every file of the system's and our folders and of the storage, what is mounted, what DRBD and o2cb have in force."""
    folders = f"/etc /boot /var/lib /usr/lib/pvedrbdstor {MOUNT_POINT}"
    return node.run(
        f"""find {folders} -printf '%p %y %m %U %s %T@ %C@\n' 2>/dev/null | sort
cat /proc/mounts
drbdsetup show
grep -r . /sys/kernel/config/cluster /sys/fs/ocfs2 2>/dev/null | sort"""
    )


@pytest.mark.soak
def test_the_hint_of_a_new_pair_is_cleared_by_its_command(pair: Cluster) -> None:
    a = pair.a
    a.run(f"rm -f {RECORD}")
    fresh = doctor(a)
    assert set(fresh) == NEVER_COMPARED, fresh
    a.run(fresh["verify-never"]["commands"][0], 120)
    assert doctor(a) == {}


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
        on_each(nodes, lambda node: node.run(f"pvedrbdstor metadata save {STORAGE}"))
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
