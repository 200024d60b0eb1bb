"""The plan: complete, the same for the same facts, and never at a device that is somebody's."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.drbd import blocks
from pvedrbdstor.fencing.arbiter import Votes
from pvedrbdstor.ocfs2.o2cb import parse_cluster_conf, parse_defaults
from pvedrbdstor.setup.facts import Facts, Interface
from pvedrbdstor.setup.plan import Plan, make
from pvedrbdstor.setup.steps import Kind, Step
from tests.setup import world

THIRD_VOTE = "--without-third-vote-both-nodes-reset"


def of(plan: Plan, kind: Kind) -> list[Step]:
    return [step for step in plan.steps if step.kind is kind]


def written(plan: Plan, path: str) -> list[str]:
    return [file.content for step in plan.steps for file in step.files if file.path == path]


def commands(plan: Plan) -> list[str]:
    return [shlex.join(words) for step in plan.steps for words in step.commands]


class TestWhatItHas:
    def test_both_nodes_get_the_same_files(self) -> None:
        plan = world.planned()
        for path in ("/etc/drbd.d/r0.res", "/etc/ocfs2/cluster.conf", "/etc/default/o2cb"):
            one, other = written(plan, path)
            assert one == other

    def test_every_step_is_on_one_of_the_two_and_has_a_name_of_its_own(self) -> None:
        plan = world.planned()
        assert {step.node for step in plan.steps} == {"pve1", "pve2"}
        assert len({step.id for step in plan.steps}) == len(plan.steps)

    def test_what_is_done_once_for_both_is_done_by_the_node_it_was_planned_on(self) -> None:
        made = make(world.nodes(), world.answers(), "pve2")
        assert isinstance(made, Plan)
        for kind in (Kind.CONNECT, Kind.FIRST_COPY, Kind.FILE_SYSTEM, Kind.ENTRY):
            assert [step.node for step in of(made, kind)] == ["pve2"]

    def test_a_disk_becomes_a_logical_volume_with_a_fifth_left_free(self) -> None:
        lines = commands(world.planned())
        assert lines.count("pvcreate --yes /dev/sdb") == 2
        assert lines.count("lvcreate --yes --wipesignatures y --name r0 --extents 80%VG mirror") == 2

    def test_without_lvm_drbd_lies_on_a_name_that_outlives_a_boot(self) -> None:
        plan = world.planned(lvm=False)
        assert not of(plan, Kind.PHYSICAL_VOLUME)
        assert 'disk "/dev/disk/by-id/wwn-0x500000000000001b";' in written(plan, "/etc/drbd.d/r0.res")[0]

    def test_a_logical_volume_is_used_as_it_is(self) -> None:
        volume = world.disk(path="/dev/data/r0", names=("/dev/data/r0", "/dev/dm-3"), kind="lvm")
        plan = world.planned(world.nodes(disks=(volume,)), disks={"pve1": "/dev/dm-3", "pve2": "/dev/data/r0"})
        assert not of(plan, Kind.PHYSICAL_VOLUME)
        assert {step.about["device"] for step in of(plan, Kind.METADATA)} == {"/dev/data/r0"}

    def test_the_file_system_is_the_one_that_the_entry_names(self) -> None:
        plan = world.planned()
        (mkfs,), (entry,) = of(plan, Kind.FILE_SYSTEM), of(plan, Kind.ENTRY)
        assert world.UUID in mkfs.commands[1] and world.UUID in entry.commands[0]
        assert {words[-1] for words in mkfs.commands} == {"/dev/drbd0"}

    def test_clusters_are_of_1_mib_from_128_gib_on(self) -> None:
        for size, wanted in ((100 << 30, False), (128 << 30, True)):
            plan = world.planned(world.nodes(disks=(world.disk(size=size),)))
            assert ("1M" in of(plan, Kind.FILE_SYSTEM)[0].commands[1]) is wanted

    def test_the_next_free_resource_device_and_port_are_taken(self) -> None:
        taken = "resource r0 { on pve1 { device /dev/drbd0; disk /dev/x; address 10.10.10.1:7789; } }"
        plan = world.planned({node: world.with_files(each, r0=taken) for node, each in world.nodes().items()})
        (text, _) = written(plan, "/etc/drbd.d/r1.res")
        assert "device /dev/drbd1;" in text and "10.10.10.1:7790;" in text

    def test_a_cluster_that_both_have_stays_as_it_is(self) -> None:
        first = world.planned()
        conf, defaults = written(first, "/etc/ocfs2/cluster.conf")[0], written(first, "/etc/default/o2cb")[0]
        conf = conf.replace("= pve\n", "= mine\n")
        found = {node: world.with_files(each, cluster=conf, o2cb=defaults) for node, each in world.nodes().items()}
        plan = world.planned(found)
        assert not written(plan, "/etc/ocfs2/cluster.conf") and not written(plan, "/etc/default/o2cb")
        assert "--cluster-name=mine" in of(plan, Kind.FILE_SYSTEM)[0].commands[1]

    def test_the_firewall_is_opened_for_the_two_alone_and_only_where_it_is_on(self) -> None:
        on = "[OPTIONS]\n\nenable: 1\n\n[RULES]\n\nGROUP mine\n"
        found = {node: world.with_files(each, firewall=on) for node, each in world.nodes().items()}
        (text,) = written(world.planned(found), "/etc/pve/firewall/cluster.fw")
        assert "IN ACCEPT -source 10.10.10.1,10.10.10.2 -dest 10.10.10.1,10.10.10.2 -p tcp -dport 7789" in text
        assert "-dport 7777" in text and text.index("-dport 7777") < text.index("GROUP mine")
        shut = {
            node: world.with_files(each, firewall=f"[OPTIONS]\nenable: 1\npolicy_out: DROP\n{on}")
            for node, each in found.items()
        }
        (text,) = written(world.planned(shut), "/etc/pve/firewall/cluster.fw")
        assert text.count("IN ACCEPT ") == text.count("OUT ACCEPT ") == 2
        off = {node: world.with_files(each, firewall="[OPTIONS]\nenable: 0\n") for node, each in world.nodes().items()}
        assert not written(world.planned(off), "/etc/pve/firewall/cluster.fw")

    def test_times_are_those_that_the_timeline_recommends(self) -> None:
        plan = world.planned()
        net = next(blocks.parse(written(plan, "/etc/drbd.d/r0.res")[0]).blocks[0].named("net"))
        assert (net.value("ping-int"), net.value("ping-timeout"), net.value("connect-int")) == ("3", "10", "3")
        assert parse_defaults(written(plan, "/etc/default/o2cb")[0]).timeouts.dead_threshold == 31

    def test_cluster_conf_reads_back(self) -> None:
        conf = parse_cluster_conf(written(world.planned(), "/etc/ocfs2/cluster.conf")[0])
        assert not conf.problems
        (cluster,) = conf.clusters
        assert [(node.number, node.name, node.address) for node in cluster.nodes] == [
            (0, "pve1", "10.10.10.1"),
            (1, "pve2", "10.10.10.2"),
        ]


FREE_WORDS = st.lists(st.sampled_from(["ext4", "gpt", "LVM2_member", "drbd", "ocfs2 'old'"]), max_size=2).map(tuple)
USERS = st.lists(st.sampled_from(["it is mounted on /srv", "it is below /dev/dm-1"]), max_size=1).map(tuple)


@st.composite
def disks(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "signatures": draw(FREE_WORDS),
        "users": draw(USERS),
        "size": draw(st.sampled_from([1 << 20, 1 << 30, 1 << 40])),
    }


class TestWhatItNeverDoes:
    @given(disks(), disks(), st.sets(st.sampled_from(["pve1", "pve2"])), st.booleans())
    def test_it_touches_no_device_that_somebody_uses_or_that_holds_what_no_flag_names(
        self, first: dict[str, Any], second: dict[str, Any], wiped: set[str], lvm: bool
    ) -> None:
        changes = {"pve1": first, "pve2": second}
        found = {
            f"pve{at}": world.facts(at, disks=(world.system_disk(at), world.disk(at, **changes[f"pve{at}"])))
            for at in (1, 2)
        }
        made = make(found, world.answers(lvm=lvm, wipe=dict.fromkeys(wiped, "/dev/sdb")), "pve1")
        harmless = all(
            not each["users"] and (not each["signatures"] or node in wiped) and each["size"] > 1 << 20
            for node, each in changes.items()
        )
        assert isinstance(made, Plan) is harmless
        if isinstance(made, Plan):
            wipes = {step.node for step in of(made, Kind.WIPE)}
            assert wipes == {node for node, each in changes.items() if each["signatures"]}

    @given(st.data())
    def test_no_command_names_a_device_beside_the_two(self, data: st.DataObject) -> None:
        plan = world.planned(lvm=data.draw(st.booleans()))
        allowed = {"/dev/sdb", "/dev/drbd0"}
        named = {word for step in plan.steps for words in step.commands for word in words if word.startswith("/dev/")}
        assert named <= allowed

    def test_the_same_facts_give_the_same_plan(self) -> None:
        found = world.nodes()
        turned = dict(reversed(list(found.items())))
        assert world.planned(found) == world.planned(turned) == world.planned()

    def test_a_flag_for_one_node_is_none_for_the_other(self) -> None:
        found = world.nodes(disks=(world.disk(signatures=("ext4",)),))
        (refusal,) = world.refused(found, wipe={"pve1": "/dev/sdb"})
        assert "pve2" in refusal.cause and "--wipe pve2:/dev/sdb" in refusal.remedy

    def test_no_flag_takes_a_device_from_its_user(self) -> None:
        found = world.nodes(disks=(world.disk(users=("it is mounted on /srv",), signatures=("ext4",)),))
        both = {"pve1": "/dev/sdb", "pve2": "/dev/sdb"}
        assert all("in use" in refusal.cause for refusal in world.refused(found, wipe=both))


def changed(**changes: Any) -> dict[str, Facts]:
    """Only pve2 is different."""
    return {**world.nodes(), "pve2": world.facts(2, **changes)}


def filed(**files: str | None) -> dict[str, Facts]:
    return {node: world.with_files(each, **files) for node, each in world.nodes().items()}


NO_DEVICE = {
    node: replace(
        world.with_files(each, corosync=world.corosync(device=False)), votes=Votes(1, 2, 2, 2, 2, world.ALIVE)
    )
    for node, each in world.nodes().items()
}
CLUSTER = written(world.planned(), "/etc/ocfs2/cluster.conf")[0]
REFUSED: dict[str, tuple[dict[str, Facts], dict[str, Any], str]] = {
    "no disk": (world.nodes(), {"disks": {"pve1": "/dev/sdz", "pve2": "/dev/sdb"}}, "no block device"),
    "one node": (world.nodes(), {"disks": {"pve1": "/dev/sdb"}}, "each of two nodes"),
    "small": (changed(disks=(world.disk(2, size=1 << 20),)), {}, "1 MiB"),
    "read-only": (changed(disks=(world.disk(2, read_only=True),)), {}, "read-only"),
    "signature": (changed(disks=(world.disk(2, signatures=("zfs_member",)),)), {}, "zfs_member"),
    "used": (changed(disks=(world.disk(2, users=("it is swap space",)),)), {}, "swap space"),
    "sectors": (changed(disks=(world.disk(2, logical_sector=4096),)), {}, "sectors"),
    "programs": (changed(missing=("drbdadm",)), {}, "lacks drbdadm"),
    "no drbd": (changed(drbd=None), {}, "no kernel module 'drbd'"),
    "old drbd": (changed(drbd="8.3.1"), {}, "DRBD 8.3.1"),
    "two drbds": (changed(drbd="9.2.1"), {}, "two generations"),
    "no ocfs2": (changed(ocfs2=False), {}, "no kernel module 'ocfs2'"),
    "version": (changed(version="0.2.0"), {}, "not the same"),
    "no cluster": (filed(corosync=None), {}, "belongs to no cluster"),
    "other names": (changed(host="other"), {}, "does not have other"),
    "no third vote": (NO_DEVICE, {}, "nobody could decide"),
    "no guard": (changed(guard=False, votes=None), {}, "guard of fencing does not run"),
    "times": (filed(corosync=world.corosync(token=60000)), {}, "times do not fit"),
    "storage": (filed(storage="dir: ha\n\tpath /x\n"), {}, "storage 'ha' already"),
    "resource": (filed(r0="resource r0 { }"), {"resource": "r0"}, "resource 'r0' already"),
    "folder": (changed(folders={"/mnt/pve/ha": ("file",)}), {}, "not empty"),
    "name": (world.nodes(), {"storage": "-x"}, "name"),
    "no lvm": (changed(lvm=False), {}, "LVM's tools"),
    "group": (changed(groups=("mirror",)), {}, "group 'mirror' already"),
    "group name": (world.nodes(), {"group": "a/b"}, "no name"),
    "network": (world.nodes(), {"network": "172.16.0.0/16"}, "172.16.0.0/16"),
    "networks": (world.nodes(), {"network": None}, "several networks"),
    "no network": (
        changed(interfaces=(Interface("eth9", ("198.51.100.1/24",), 1500),)),
        {"network": None},
        "no IPv4 network",
    ),
    "ipv6 network": (world.nodes(), {"network": "fd00::/64"}, "IPv4 addresses alone"),
    "all resources": (world.nodes(), {"resource": "all"}, "take for something else"),
    "a minor": (world.nodes(), {"resource": "0"}, "take for something else"),
    "lvm's own part": (world.nodes(), {"resource": "r0_rimage_0"}, "take for something else"),
    "lvm's own": (world.nodes(), {"resource": "snapshot1"}, "take for something else"),
    "drbd.conf": (filed(drbd="include 'x';"), {}, "does not include"),
    "other cluster": (
        {**world.nodes(), "pve2": world.with_files(world.facts(2), cluster="cluster:\n\tnode_count = 0\n\tname = x\n")},
        {},
        "not the same on both",
    ),
    "other times": (
        {
            node: world.with_files(each, cluster=CLUSTER, o2cb=f"O2CB_HEARTBEAT_THRESHOLD={number}\n")
            for number, (node, each) in enumerate(world.nodes().items(), 31)
        },
        {},
        "other times on one node",
    ),
    "wipe of another": (world.nodes(), {"wipe": {"pve1": "/dev/sda"}}, "not to be used"),
    "o2cb name": (world.nodes(), {"cluster": "not-a-name"}, "o2cb"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_in_the_way_is_named_with_its_remedy(case: str) -> None:
    found, options, words = REFUSED[case]
    refusals = world.refused(found, **options)
    assert any(words in refusal.cause for refusal in refusals), refusals
    for refusal in refusals:
        assert refusal.remedy and not refusal.remedy.endswith(".") and not refusal.cause.endswith(".")


@pytest.mark.parametrize("resource", ["all", "0", "snapshot1"])
def test_of_a_resource_that_is_taken_otherwise_the_option_is_told(resource: str) -> None:
    """Of letters and digits it is."""
    (refusal,) = world.refused(world.nodes(), resource=resource)
    assert refusal.remedy == "Choose another one with '--resource', or leave it out"


def test_all_that_is_in_the_way_is_told_at_once() -> None:
    refusals = world.refused(changed(drbd=None, missing=("pvesm",), disks=()))
    assert len(refusals) >= 3


def test_further_nodes_of_the_cluster_do_not_get_the_storage() -> None:
    third = world.corosync(device=False).replace(
        "}\nquorum", "  node {\n    name: pve3\n    nodeid: 3\n    ring0_addr: 192.0.2.13\n  }\n}\nquorum"
    )
    plan = world.planned(filed(corosync=third))
    (entry,) = of(plan, Kind.ENTRY)
    assert entry.commands[0][-2:] == ("--nodes", "pve1,pve2")
    assert any("Install pvedrbdstor on pve3" in note for note in plan.notes)
    assert "--nodes" not in of(world.planned(), Kind.ENTRY)[0].commands[0]


class TestDangers:
    def test_without_a_third_vote_only_by_a_flag_that_names_what_happens(self) -> None:
        remedies = [refusal.remedy for refusal in world.refused(NO_DEVICE)]
        for words in (THIRD_VOTE, "'pvecm qdevice setup ADDRESS'", "corosync-qnetd", "corosync-qdevice"):
            assert all(words in remedy for remedy in remedies)
        plan = world.planned(NO_DEVICE, without_third_vote=True)
        assert any("both nodes freeze" in note for note in plan.notes)
        assert "resource-and-stonith" in written(plan, "/etc/drbd.d/r0.res")[0]

    def test_without_fencing_only_by_a_flag_that_names_what_happens(self) -> None:
        plan = world.planned(NO_DEVICE, without_fencing=True)
        text = written(plan, "/etc/drbd.d/r0.res")[0]
        assert "fencing resource" not in text and "fence-peer" not in text
        assert any("one side's writes will be lost" in note for note in plan.notes)

    def test_unprotected_is_no_success_unless_it_was_accepted(self) -> None:
        assert all("unprotected" not in step.about["accepted"] for step in of(world.planned(), Kind.STATUS))
        risky = world.planned(without_fencing=True)
        assert all("unprotected" in step.about["accepted"] for step in of(risky, Kind.STATUS))
