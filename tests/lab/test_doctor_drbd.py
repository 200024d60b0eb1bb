"""What `pvedrbdstor doctor` finds in DRBD's settings of two real nodes, each cleared by doing what its remedy says."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from pvedrbdstor.nodes import Way, copying
from tests.lab.cluster import Cluster
from tests.lab.doctoring import (
    NEVER_COMPARED,
    RES_FILE,
    doctor,
    edit_drbd_conf,
    follow,
    own_file,
    prepare,
    settle,
    told,
)
from tests.lab.formation import RESOURCE, STORAGE, on_each
from tests.lab.node import Node

REPRODUCES = {
    *("drbd-config-differs", "drbd-config-not-in-force", "drbd-undefined", "drbd-protocol", "unread"),
    *("drbd-no-verify-alg", "drbd-flushes-off", "drbd-al-extents", "drbd-resync-slow"),
}
ADJUST = f"drbdadm adjust {RESOURCE}"
DRY_RUN = f"drbdadm --dry-run adjust {RESOURCE}"
DUMP = f"drbdadm dump {RESOURCE}"


@pytest.fixture
def pair(volumes: Cluster) -> Iterator[Cluster]:
    """The shared cluster as an administrator should have it; its configuration is put back afterwards."""
    prepare(volumes)
    with own_file(volumes):
        yield volumes


def change(node: Node, *programs: str, adjust: bool = True) -> None:
    """sed on the resource's file, and have DRBD take it up."""
    words = " ".join(f"-e '{program}'" for program in programs)
    node.run(f"sed -i -E {words} {RES_FILE}" + (f" && {ADJUST}" if adjust else ""))


def test_settings_that_cost_speed_or_safety_are_written_as_told(pair: Cluster) -> None:
    """Where the file has them, wrong, and DRBD has them in force."""
    wrong = (
        "s/verify-alg crc32c;//",
        "s/resync-rate 200M/resync-rate 1k/",
        "s/disk \\{/& md-flushes no; disk-flushes no; al-extents 257;/",
    )
    for node in pair.nodes:
        change(node, *wrong)
    pair.a.run(
        ADJUST
    )  # b's disk-options had brought b's verify-alg back to a: 8.4 sends it with them (receive_SyncParam())
    found = doctor(pair.a)
    ids = ("drbd-no-verify-alg", "drbd-flushes-off", "drbd-al-extents", "drbd-resync-slow")
    assert set(found) - NEVER_COMPARED == set(ids), list(found.values())
    for name, severity in zip(ids, ("hint", "warning", "hint", "warning"), strict=True):
        finding = told(found[name], severity, "nodea nodeb")
        edit_drbd_conf(pair.nodes, finding)
        follow(pair.nodes, finding, [DRY_RUN, ADJUST])
    assert set(doctor(pair.a)) <= NEVER_COMPARED
    in_force = " ".join(pair.b.run(f"drbdsetup show {RESOURCE}").split())
    for line in ('verify-alg "crc32c"', "al-extents 6007", "c-max-rate 409600k"):
        assert line in in_force, in_force


@pytest.mark.soak
def test_a_configuration_that_differs_and_is_not_in_force(pair: Cluster) -> None:
    """b's file alone was changed, and not taken up; a was changed by hand."""
    a, b = pair.nodes
    change(b, "s/ping-int 5/ping-int 6/", adjust=False)
    a.run(f"drbdadm net-options --ping-timeout=20 {RESOURCE}")
    found = doctor(a)
    assert set(found) - NEVER_COMPARED == {"drbd-config-differs", "drbd-config-not-in-force"}, found
    differs = told(found["drbd-config-differs"], "error", "nodea nodeb")
    assert "net ping-int is 5 on nodea and 6 on nodeb" in differs["meaning"]
    assert "correct the files in /etc/drbd.d/ on the node where that is wrong" in differs["remedy"].lower()
    change(b, "s/ping-int 6/ping-int 5/", adjust=False)
    follow(pair.nodes, differs, [DRY_RUN, ADJUST])
    assert set(doctor(a)) <= NEVER_COMPARED
    b.run(f"drbdadm net-options --ping-timeout=20 {RESOURCE}")
    (finding,) = (each for name, each in doctor(a).items() if name == "drbd-config-not-in-force")
    told(finding, "warning", "nodeb")
    assert "On nodeb see first" in finding["remedy"]
    follow([b], finding, [DRY_RUN, ADJUST])
    assert set(doctor(a)) <= NEVER_COMPARED


@pytest.mark.soak
def test_a_resource_that_a_node_does_not_know_or_cannot_read(pair: Cluster) -> None:
    a, b = pair.nodes
    b.run(f"rm {RES_FILE}")
    found = doctor(a)
    undefined = told(found["drbd-undefined"], "error", "nodeb")
    copy = copying(Way("nodea"), RES_FILE, "/etc/drbd.d/")
    assert undefined["commands"] == [copy, DUMP] and undefined["remedy"].startswith("On nodeb, ")
    b.run(copy)
    assert set(doctor(a)) <= NEVER_COMPARED
    change(b, "s/ping-int 5;/ping-int 5/", adjust=False)
    found = doctor(a)
    assert set(found) - NEVER_COMPARED == {"unread"}, found
    unread = told(found["unread"], "warning", "nodeb")
    assert "Correct the files in /etc/drbd.d/ on nodeb" in unread["remedy"] and unread["commands"] == ["drbdadm dump"]
    said = b.sh(unread["commands"][0])
    assert said.rc != 0 and re.search(rf"{RESOURCE}\.res:[0-9]+", said.out), said.out
    change(b, "s/ping-int 5/ping-int 5;/", adjust=False)
    assert set(doctor(a)) <= NEVER_COMPARED


@pytest.mark.soak
def test_a_mirror_that_does_not_replicate_with_protocol_c(pair: Cluster) -> None:
    """DRBD itself refuses it where two nodes may be Primary, so only one of them is."""
    a, b = pair.nodes
    b.run(f"pvedrbdstor mirror down {STORAGE}", 60)
    only_one = "s/allow-two-primaries yes/allow-two-primaries no/"
    for node in pair.nodes:
        change(node, "s/protocol C;//", only_one, "s/net \\{/& protocol A;/")
    try:
        found = doctor(a)
        finding = told(found["drbd-protocol"], "error", "nodea nodeb")
        edit_drbd_conf(pair.nodes, finding)
        follow(pair.nodes, finding, [DRY_RUN, ADJUST])
        assert "drbd-protocol" not in doctor(a)
        assert " C r-----" in a.run("cat /proc/drbd")
    finally:
        on_each(pair.nodes, lambda node: node.run(f"cp -p /root/{RESOURCE}.res {RES_FILE} && {ADJUST}"))
        b.run(f"pvedrbdstor mirror up {STORAGE}", 150)
    settle(pair)
