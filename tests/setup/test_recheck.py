"""At each apply, before anything is done: what an unbegun disk holds, who has it, and who would judge, is as before the plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pvedrbdstor.errors import SetupRefused
from pvedrbdstor.setup import exact
from pvedrbdstor.setup.facts import Facts, Resource
from pvedrbdstor.setup.plan import Plan
from tests.setup import world
from tests.setup.applying import HOUR, NOW, RECORD, Nodes, run


def pending(change: str) -> Nodes:
    """An apply that was killed before pve2's disk was touched; then something has changed on pve2."""
    nodes = Nodes()
    run(world.planned(), nodes, "setup.begun.pve1.pv")
    nodes.taken.clear()
    found = nodes.found["pve2"]
    disk = world.disk(2)
    nodes.found["pve2"] = {
        "signature": replace(found, disks=(replace(disk, signatures=("ext4",)),)),
        "user": replace(found, disks=(replace(disk, users=("VM 100 names it in its configuration",)),)),
        "group": replace(found, groups=("mirror", "pve")),
        "storage": world.with_files(found, storage="drbdocfs2: ha\n\tpath /mnt/pve/ha\n"),
        "resource": world.with_files(found, r0="resource r0 { on a { device /dev/drbd7; } }"),
        "minor": replace(found, files={**found.files, "/etc/drbd.d/x.res": "resource x { device /dev/drbd0; }"}),
        "guard": replace(found, guard=False),
        "version": replace(found, version="9.9.9"),
    }[change]
    return nodes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("signature", "holds something: ext4"),
        ("user", "VM 100 names it"),
        ("group", "volume group 'mirror' already"),
        ("storage", "storage 'ha' already"),
        ("resource", "r0.res on pve2 has resource r0"),
        ("minor", "x.res on pve2 has resource r0 or /dev/drbd0"),
        ("guard", "guard of fencing does not run on pve2"),
        ("version", "not the same on both nodes"),
    ],
)
def test_gone_on_with_later_a_node_whose_disk_is_whole_is_looked_at_as_before_the_plan(change: str, words: str) -> None:
    nodes = pending(change)
    with pytest.raises(SetupRefused, match=words) as caught:
        run(world.planned(), nodes)
    assert nodes.taken == [] and "Nothing was touched" not in caught.value.message


def test_what_the_plan_itself_has_written_is_not_in_its_way_later() -> None:
    plan, nodes = world.planned(), Nodes()
    run(plan, nodes, "setup.begun.pve1.pv")
    (step,) = [step for step in plan.steps if step.id == "pve2.resource"]
    nodes.found = {node: world.with_files(found, r0=step.files[0].content) for node, found in nodes.found.items()}
    run(plan, nodes)
    assert nodes.saved is not None and nodes.saved.finished


def test_its_own_resource_is_not_in_its_way_on_its_disk_and_another_s_is() -> None:
    plan, nodes = world.planned(lvm=False), Nodes()
    run(plan, nodes, "setup.begun.pve1.metadata")
    (step,) = [step for step in plan.steps if step.id == "pve2.resource"]

    def having(resource: str) -> dict[str, Facts]:
        text = step.files[0].content
        return {
            node: replace(
                found,
                disks=(world.disk(int(node[-1]), drbd=(resource,)),),
                files={**found.files, "/etc/drbd.d/r0.res": text, "/etc/drbd.d/mail.res": "resource mail { }"},
            )
            for node, found in world.nodes().items()
        }

    nodes.found = having("mail")
    with pytest.raises(SetupRefused, match="'mail' has it"):
        run(plan, nodes)
    nodes.found = having("r0")
    run(plan, nodes)
    assert nodes.saved is not None and nodes.saved.finished


@pytest.mark.parametrize("resource", [Resource("r0", (5,), ()), Resource("other", (0,), ())])
def test_a_resource_that_the_kernel_alone_has_is_in_the_way(resource: Resource) -> None:
    plan, nodes = world.planned(), Nodes()
    run(plan, nodes, "setup.begun.pve1.pv")
    nodes.found["pve2"] = world.facts(2, resources=(resource,))
    with pytest.raises(SetupRefused, match="in none of its files"):
        run(plan, nodes)


def test_a_disk_that_was_only_wiped_may_be_somebody_s_by_now() -> None:
    plan, nodes = wiping_plan()
    run(plan, nodes, "setup.begun.pve2.pv")
    assert nodes.saved is not None
    nodes.saved = replace(nodes.saved, doing=None)
    nodes.found["pve2"] = world.facts(2, disks=(world.disk(2, users=("VM 100 names it in its configuration",)),))
    with pytest.raises(SetupRefused, match="VM 100"):
        run(plan, nodes)


def wiping_plan() -> tuple[Plan, Nodes]:
    nodes = Nodes()
    nodes.found["pve2"] = world.facts(2, disks=(world.disk(2, signatures=("ext4",)),))
    made = world.planned(nodes.found, wipe={"pve2": "/dev/sdb"})
    return exact.sealed(made, {"pve2": RECORD}, NOW), nodes


@pytest.mark.parametrize("at", [None, "setup.begun.pve1.pv"])
@pytest.mark.parametrize("now", [RECORD.replace("u1", "u2"), RECORD.replace("1 a", "1 b")])
def test_a_file_system_of_the_same_kind_made_since_the_plan_is_not_wiped(at: str | None, now: str) -> None:
    plan, nodes = wiping_plan()
    if at is not None:
        run(plan, nodes, at)
    nodes.taken.clear()
    nodes.on_disk["pve2"] = now
    with pytest.raises(SetupRefused):
        run(plan, nodes)
    assert nodes.taken == []


def test_what_was_shown_is_wiped_with_a_copy_of_what_goes() -> None:
    plan, nodes = wiping_plan()
    run(plan, nodes)
    (step,) = [step for step in nodes.steps if step.id == "pve2.wipe"]
    assert step.about["exact"] == RECORD and step.commands == (("wipefs", "--backup", "--all", "--force", "/dev/sdb"),)


@pytest.mark.parametrize("hours", [25, -2])
def test_a_plan_that_wipes_is_for_a_day_until_it_has_wiped(hours: int) -> None:
    plan, nodes = wiping_plan()
    with pytest.raises(SetupRefused, match="24 hours ago"):
        run(plan, nodes, now=NOW + hours * HOUR)
    assert nodes.taken == []
    run(plan, nodes, "setup.acted.pve2.wipe")
    run(plan, nodes, "setup.begun.pve2.lv")
    run(plan, nodes, now=NOW + hours * HOUR)
    assert nodes.saved is not None and nodes.saved.finished


def test_a_plan_that_does_not_tell_exactly_what_it_wipes_is_refused() -> None:
    nodes = wiping_plan()[1]
    with pytest.raises(SetupRefused, match="does not tell exactly"):
        run(world.planned(nodes.found, wipe={"pve2": "/dev/sdb"}), nodes)


def test_a_disk_that_a_reboot_has_renamed_is_found_by_what_names_it_for_good() -> None:
    plan, nodes = world.planned(), Nodes()
    run(plan, nodes, "setup.begun.pve2.pv")
    other = world.disk(2, path="/dev/sdb", names=("/dev/sdb",), identity="another", signatures=("ext4",))
    nodes.found["pve2"] = world.facts(2, disks=(other, world.disk(2, path="/dev/sdc", names=("/dev/sdc",))))
    nodes.steps.clear()
    run(plan, nodes)
    told = {step.id: step for step in nodes.steps}
    assert told["pve2.pv"].commands == (("pvcreate", "--yes", "/dev/sdc"),)
    assert told["pve2.vg"].commands == (("vgcreate", "mirror", "/dev/sdc"),)
    assert told["pve2.lv"].about["disk"] == "/dev/sdc"
    assert {told[name].about["identity"] for name in ("pve2.pv", "pve2.vg", "pve2.lv", "pve2.metadata")} == {
        next(device.identity for device in plan.devices if device.node == "pve2")
    }


def test_one_whose_moving_name_is_in_drbd_s_file_is_refused_when_it_has_moved() -> None:
    bare = {
        node: world.facts(at, disks=(world.disk(at, names=("/dev/sdb",)),)) for at, node in ((1, "pve1"), (2, "pve2"))
    }
    plan, nodes = world.planned(bare, lvm=False), Nodes(found=bare)
    run(plan, nodes, "setup.begun.pve2.metadata")
    nodes.found["pve2"] = world.facts(2, disks=(world.disk(2, path="/dev/sdc", names=("/dev/sdc",)),))
    with pytest.raises(SetupRefused, match="not there any more"):
        run(plan, nodes)
