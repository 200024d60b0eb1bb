"""What is somebody's already: names, numbers, files, disks, clusters. A plan neither takes nor replaces it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.ocfs2 import o2cb
from pvedrbdstor.setup import facts as facts_of
from pvedrbdstor.setup import taken, templates
from pvedrbdstor.setup.facts import Facts, Resource, is_device_name
from pvedrbdstor.setup.plan import lasting_name
from pvedrbdstor.setup.steps import Kind, Refusal, printable
from pvedrbdstor.setup.templates import Host
from pvedrbdstor.setup.values import Malformed
from tests.setup import world
from tests.setup.test_plan import CLUSTER, of, written

RULE = "/etc/udev/rules.d/99-pvedrbdstor-r0.rules"


def having(**files: str) -> dict[str, Facts]:
    """Both nodes with more files, by their paths."""
    return {node: replace(each, files={**each.files, **files}) for node, each in world.nodes().items()}


def refusal(found: dict[str, Facts], words: str, **options: Any) -> Refusal:
    (one, *_) = [each for each in world.refused(found, **options) if words in each.cause]
    assert one.remedy
    return one


class TestFiles:
    @pytest.mark.parametrize("name", ["r0.res", "r0.res.bak", "r0.conf", "r0"])
    def test_a_file_of_a_resource_s_name_is_taken_whatever_it_holds(self, name: str) -> None:
        found = having(**{f"/etc/drbd.d/{name}": "resource mail { }"})
        plan = world.planned(found)
        assert not written(plan, "/etc/drbd.d/r0.res") and written(plan, "/etc/drbd.d/r1.res")
        refusal(found, "a file of that name", resource="r0")

    def test_another_s_rule_is_not_replaced_but_for_the_very_same(self) -> None:
        assert "move it away" in refusal(having(**{RULE: "# theirs\n"}), RULE).remedy
        rules = written(world.planned(), RULE)
        same = {
            node: replace(each, files={**each.files, RULE: rule})
            for (node, each), rule in zip(world.nodes().items(), rules, strict=True)
        }
        assert written(world.planned(same), RULE) == rules

    @pytest.mark.parametrize("text", ["", "# nothing\n", "node:\n\tname = x\n"])
    def test_a_cluster_conf_that_is_not_understood_stays(self, text: str) -> None:
        told = refusal(having(**{o2cb.CLUSTER_CONF: text}), o2cb.CLUSTER_CONF)
        assert not text or "is not the same on both nodes, or has no cluster of these two" in told.cause

    def test_files_that_are_only_ever_new_are_never_planned_over_others(self) -> None:
        new = ("/etc/drbd.d/", o2cb.CLUSTER_CONF, "/etc/udev/")
        files = [file for step in world.planned().steps for file in step.files if file.path.startswith(new)]
        assert len(files) == 6 and all(file.before is None for file in files)

    @pytest.mark.parametrize("conf", [None, "", '# include "drbd.d/*.res";\n', 'include "drbd.d/*.conf";\n'])
    def test_a_drbd_conf_that_reads_no_resource_is_in_the_way(self, conf: str | None) -> None:
        refusal({node: world.with_files(each, drbd=conf) for node, each in world.nodes().items()}, "does not include")

    def test_a_global_filter_that_is_not_understood_is_in_the_way_until_it_has_the_entry(self) -> None:
        for text in (
            'devices { global_filter = [ "a|.*|" ] }\n',
            'devices/global_filter=["a|.*|"]\n',
            'devices {\n global_filter = [ "a|x|",\n "r|.*|" ]\n}\n',
        ):
            found = {node: world.with_files(each, lvm=text) for node, each in world.nodes().items()}
            told = refusal(found, "global_filter")
            assert '"r|^/dev/drbd0$|"' in told.remedy
            done = text.replace("[", '["r|^/dev/drbd0$|", ', 1)
            plan = world.planned({node: world.with_files(each, lvm=done) for node, each in world.nodes().items()})
            assert not written(plan, "/etc/lvm/lvm.conf")
        refusal(having(**{"/etc/lvm/lvmlocal.conf": 'devices { global_filter = "a|.*|" }'}), "counts before")


class TestDrbd:
    def test_what_drbdadm_reads_from_elsewhere_and_what_the_kernel_runs_is_taken(self) -> None:
        dump = (
            "# resource r0 on pve1: not ignored, not stacked\nresource r0 {\n    on pve1 {\n"
            "        volume 0 { device /dev/drbd0 minor 0; disk /dev/x; }\n        address ipv4 10.0.0.1:7789;\n    }\n}\n"
            "resource far {\n    connection { host a address ipv4 10.0.0.1:7791; host b address ipv4 10.0.0.2:7790; }\n}\n"
        )
        show = "resource up {\n    _this_host {\n        volume 0 { device minor 1; }\n        address ipv4 10.0.0.1:7792;\n    }\n}\n"
        told = tuple(taken.unwritten([dump, show, ""], []))
        assert told == (Resource("r0", (0,), (7789,)), Resource("far", (), (7790, 7791)), Resource("up", (1,), (7792,)))
        plan = world.planned(world.nodes(resources=told))
        (text, _) = written(plan, "/etc/drbd.d/r1.res")
        assert "device /dev/drbd2;" in text and ":7793;" in text

    def test_a_resource_that_is_just_as_in_its_file_is_told_once(self) -> None:
        """Else that which a setup has written and brought up itself would be in its own way when it goes on."""
        (file, _) = written(world.planned(), "/etc/drbd.d/r0.res")
        show = 'resource r0 {\n    _this_host { volume 0 { device minor 0; disk "/dev/x"; } address ipv4 10.10.10.1:7789; }\n}\n'
        assert not list(taken.unwritten([show, file], [file]))
        assert list(taken.unwritten([show.replace("minor 0", "minor 4")], [file]))

    def test_a_disk_of_another_resource_is_in_use(self) -> None:
        file = "resource mail { on pve1 { disk /dev/sdb; } }"
        found = {
            node: replace(each, files={**each.files, "/etc/drbd.d/mail.res": file}, disks=(world.disk(drbd=("mail",)),))
            for node, each in world.nodes().items()
        }
        assert "'mail' has it" in refusal(found, "in use", wipe={"pve1": "/dev/sdb"}).cause
        own = {node: replace(each, files=world.facts().files) for node, each in found.items()}
        assert not any("in use" in each.cause for each in world.refused(own)), "no file and no kernel has that resource"

    @pytest.mark.parametrize("field", ["drbd_problem", "guests_problem"])
    def test_what_cannot_be_told_is_in_the_way(self, field: str) -> None:
        found: dict[str, Facts] = {**world.nodes(), "pve2": replace(world.facts(2), **{field: "it is broken"})}
        refusal(found, "pve2 cannot tell")


class TestDisks:
    def test_one_lun_is_no_mirror(self) -> None:
        for identity in ("wwn=0x5 serial=S", "mapped=LVM-xyz", "serial=S"):
            found = world.nodes(disks=(world.disk(identity=identity),))
            refusal(found, "one disk that both nodes reach")
        found = {"pve1": world.facts(1), "pve2": world.facts(2, disks=(world.disk(1, path="/dev/sdb"),))}
        refusal(found, "one disk")

    def test_the_lasting_name_is_the_disk_s_own(self) -> None:
        names = ["lvm-pv-uuid-x", "dm-name-x", "dm-uuid-x", "md-name-x", "wwn-0x0000000000000000"]
        assert lasting_name(f"/dev/disk/by-id/{name}" for name in names) is None
        ordered = ["wwn-0x5", "nvme-eui.01", "scsi-36", "ata-M_S", "virtio-s", "nvme-M_S", "usb-M_S"]
        for at, name in enumerate(ordered):
            assert (
                lasting_name(f"/dev/disk/by-id/{each}" for each in (*names, *ordered[at:][::-1]))
                == f"/dev/disk/by-id/{name}"
            )
        assert lasting_name(["/dev/sdb", "/dev/disk/by-path/wwn-0x5"]) is None

    def test_each_step_on_a_disk_has_what_names_the_disk_for_good(self) -> None:
        for lvm in (True, False):
            plan = world.planned(
                world.nodes(disks=(world.disk(signatures=("ext4",)),)) | {"pve2": world.facts(2)},
                lvm=lvm,
                wipe={"pve1": "/dev/sdb"},
            )
            steps = [step for step in plan.steps if step.about.get("device") == "/dev/sdb"]
            steps += of(plan, Kind.METADATA) if not lvm else []
            assert steps
            for step in steps:
                device = next(each for each in plan.devices if each.node == step.node)
                assert step.about["identity"] == device.identity
        assert all("identity" not in step.about for step in of(world.planned(), Kind.METADATA)), (
            "it lies on a volume yet to be made"
        )


class TestCluster:
    def test_a_cluster_on_another_network_keeps_it_and_each_port_is_opened_for_its_own(self) -> None:
        conf = CLUSTER.replace("10.10.10.", "192.0.2.1").replace("7777", "7778")
        defaults = written(world.planned(), "/etc/default/o2cb")[0]
        on = "[OPTIONS]\nenable: 1\n"
        found = {
            node: world.with_files(each, cluster=conf, o2cb=defaults, firewall=on)
            for node, each in world.nodes().items()
        }
        plan = world.planned(found)
        (text,) = written(plan, "/etc/pve/firewall/cluster.fw")
        assert "-source 10.10.10.1,10.10.10.2 -dest 10.10.10.1,10.10.10.2 -p tcp -dport 7789" in text
        assert "-source 192.0.2.11,192.0.2.12 -dest 192.0.2.11,192.0.2.12 -p tcp -dport 7778" in text
        assert "-dport 7777" not in text and any("192.0.2.11" in note for note in plan.notes)

    def test_one_whose_address_a_node_does_not_have_is_in_the_way(self) -> None:
        conf = CLUSTER.replace("10.10.10.2", "10.10.10.9")
        found = {node: world.with_files(each, cluster=conf) for node, each in world.nodes().items()}
        refusal(found, "has the address 10.10.10.9 for pve2")


class TestNames:
    @pytest.mark.parametrize(
        "change",
        [
            {"host": "pve1; reboot"},
            {"host": ""},
            {"disks": (world.disk(path="/dev/sdb;x"),)},
            {"disks": (world.disk(names=("/dev/../etc/passwd",)),)},
            {"disks": (world.disk(names=("/dev/sdb", "sdb")),)},
            {"disks": (world.disk(model="\x1b[2J"),)},
            {"disks": (world.disk(users=("\x07",)),)},
            {"disks": (world.disk(udev=("ID_SERIAL=\x07",)),)},
            {"guests_problem": "\x1b[2J"},
        ],
    )
    def test_what_the_other_node_says_is_no_name_if_it_could_be_more(self, change: dict[str, Any]) -> None:
        facts_of.parse(json.dumps(facts_of.as_json(world.facts())))
        with pytest.raises(Malformed):
            facts_of.parse(json.dumps(facts_of.as_json(world.facts(**change))))

    def test_nor_is_it_written_into_a_file(self) -> None:
        for host in (Host("a b", "/dev/sdb", "10.0.0.1", 0), Host("a", "/dev/sdb; }", "10.0.0.1", 0)):
            with pytest.raises(Malformed):
                templates.cluster_conf("pve", [host])
        with pytest.raises(Malformed):
            templates.udev_rule("r0", world.disk(), '/dev/sdb"', None)

    @given(st.text())
    def test_printable_is_printable_and_twice_is_once(self, text: str) -> None:
        assert printable(text).isprintable() and printable(printable(text)) == printable(text)

    @given(st.from_regex(r"/dev/[^\n]{0,20}", fullmatch=True))
    def test_a_device_s_name_leads_nowhere_else(self, name: str) -> None:
        if is_device_name(name):
            assert name.isascii() and not set(name) & set(" ;\"'\\$`*?{}()<>|&#\n") and "/../" not in f"{name}/"
