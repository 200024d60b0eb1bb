"""The files: DRBD's and OCFS2's own tools read them, and docs/install.md has the same by hand."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.drbd import blocks
from pvedrbdstor.drbd.generation import Generation
from pvedrbdstor.ocfs2.o2cb import KERNEL_DEFAULTS
from pvedrbdstor.pve import firewall
from pvedrbdstor.setup import build, templates
from pvedrbdstor.setup.plan import Plan
from pvedrbdstor.setup.templates import Host, Mirror
from tests.setup import world

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "install.md").read_text()
HOSTS = (Host("pve1", "/dev/mirror/r0", "10.10.10.1", 0), Host("pve2", "/dev/mirror/r0", "10.10.10.2", 1))
MIRROR = Mirror("r0", 0, 7789, HOSTS, Generation.V8_4, True, None, 3, 10, 3)
PROGRAMS = {
    Generation.V8_4: "/lib/drbd/drbdadm-84",
    Generation.V9: "drbdadm",
}  # what drbdadm becomes with that module loaded


def block(word: str) -> str:
    (found,) = [text for text in re.findall(r"^```\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL) if word in text]
    return str(found)


def without_title(text: str) -> str:
    """Without comments."""
    return "".join(f"{line}\n" for line in text.splitlines() if not line.startswith("#"))


def dumped(tmp_path: Path, mirror: Mirror, host: str) -> str:
    """What DRBD's own program of that generation understands, on that host."""
    file = tmp_path / "r0.res"
    file.write_text(templates.resource_file(mirror))
    script = f'hostname {host}; exec {PROGRAMS[mirror.generation]} --config-file="$1" dump r0'
    command = ("unshare", "--uts", "sh", "-euc", script, "sh", str(file))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("generation", Generation)
@pytest.mark.parametrize("fenced", [True, False])
@pytest.mark.parametrize("speed", [None, 100, 1000, 10000, 400000])
def test_drbd_of_either_generation_reads_its_resource_on_either_node(
    tmp_path: Path, generation: Generation, fenced: bool, speed: int | None
) -> None:
    mirror = replace(MIRROR, generation=generation, fenced=fenced, speed=speed)
    for host in ("pve1", "pve2"):
        said = dumped(tmp_path, mirror, host)
        assert ("resource-and-stonith" in said) is fenced
        assert "allow-two-primaries" in said and "10.10.10.2:7789" in said


def test_drbd_9_gets_no_quorum_of_its_own() -> None:
    """docs/fencing.md says why: fencing freezes as it would, and a node that noted its loss may be called UpToDate."""
    text = templates.resource_file(replace(MIRROR, generation=Generation.V9))
    assert "auto-promote no;" in text and "quorum" not in text


def test_the_resource_is_that_of_the_install_guide() -> None:
    ours, theirs = (blocks.parse(text).blocks[0] for text in (templates.resource_file(MIRROR), block("resource r0 {")))
    for name in ("net", "disk", "handlers"):
        (one,), (other,) = ours.named(name), theirs.named(name)
        assert one.options == other.options, name
    assert [(on.words, on.options) for on in ours.named("on")] == [(on.words, on.options) for on in theirs.named("on")]


def test_the_o2cb_files_are_those_of_the_install_guide() -> None:
    assert templates.cluster_conf("pve", HOSTS) == without_title(block("node_count"))
    assert without_title(templates.o2cb_defaults("pve", KERNEL_DEFAULTS)) == without_title(block("O2CB_ENABLED"))


def test_mkfs_is_that_of_the_install_guide() -> None:
    guide = block("mkfs.ocfs2").replace("\\\n", " ")
    (line,) = re.findall(r"pve1# (mkfs\.ocfs2 .*)/dev/drbd0", guide)
    ours = [
        word
        for word in build.mkfs("pve", "U" * 32, "ha", 100 << 30)
        if word not in ("-F", "-q", "-L", "ha", "-U", "U" * 32)
    ]
    assert ours == line.split()


def test_o2cb_reads_its_cluster(tmp_path: Path) -> None:
    file = tmp_path / "cluster.conf"
    file.write_text(templates.cluster_conf("pve", HOSTS))
    done = subprocess.run(
        ["o2cb", f"--config-file={file}", "list-nodes", "pve"], capture_output=True, text=True, timeout=60
    )
    assert re.findall(r"name = (\S+)", done.stdout) == ["pve1", "pve2"], done.stderr


@pytest.mark.parametrize("size", [512 << 20, 4 << 30, 200 << 30])
def test_the_file_system_can_be_made_at_any_size_and_again(tmp_path: Path, size: int) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(size)
    uuid = "0123456789ABCDEF0123456789ABCDEF"
    for _ in range(2):  # again, over what an interrupted try has left
        for words in build.file_system("pve", uuid, "ha", size, str(disk)):
            subprocess.run(words, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
    told = subprocess.run(
        ["tunefs.ocfs2", "-Q", "%U %T %N %V", str(disk)], check=True, capture_output=True, text=True
    ).stdout
    assert told.split()[:3] == [uuid, str(1 << 20 if size >= 128 << 30 else int(told.split()[1])), "2"]


class TestLvm:
    def test_proxmox_s_filter_gets_drbd_s_devices_first(self) -> None:
        text = 'devices {\n    # added by pve-manager\n    global_filter=["r|/dev/zd.*|","r|/dev/rbd.*|"]\n}\n'
        assert templates.lvm_filtered(text, 1) == text.replace("[", '["r|^/dev/drbd1$|", ')

    def test_one_that_lets_the_device_through_before_is_not_enough(self) -> None:
        text = 'devices {\n\tglobal_filter = [ "a|.*|", "r|^/dev/drbd0$|" ]\n}\n'
        assert '[ "r|^/dev/drbd0$|", "a|.*|"' in str(templates.lvm_filtered(text, 0)).replace("[", "[ ")

    @pytest.mark.parametrize("line", ["#global_filter=[]", '\t# global_filter = "x"', 'filter = "a" # global_filter'])
    def test_a_comment_is_none(self, line: str) -> None:
        assert templates.active_filters(f"devices {{\n{line}\n}}\n") == 0

    def test_where_there_is_none_it_is_added(self) -> None:
        text = '# global_filter = [ "a|.*|" ]\nlog {\n}\n'
        wanted = templates.lvm_filtered(text, 0)
        assert wanted is not None and wanted.startswith(text) and 'global_filter = [ "r|^/dev/drbd0$|" ]' in wanted

    @pytest.mark.parametrize(
        "text",
        [
            'devices {\n global_filter = [ "a|x|",\n "r|.*|" ]\n}\n',
            'devices {\n global_filter = "r|.*|"\n}\n',
            'devices { global_filter = [ "r|.*|" ] }\n',
            'devices/global_filter=[ "r|.*|" ]\n',
            'devices/global_filter = [ "r|#|" ] # x\n',
            'devices { filter = [ "r|^/dev/drbd0$|" ] global_filter = [ "a|.*|" ] }\n',
            'devices {\n global_filter = [ "a|x|" ]\n global_filter = [ "r|.*|" ]\n}\n',
        ],
    )
    def test_one_that_is_not_understood_is_left_alone(self, text: str) -> None:
        assert templates.lvm_filtered(text, 0) is None

    @given(st.lists(st.sampled_from(['"r|/dev/zd.*|"', '"a|/dev/sd.*|"', '"r|^/dev/drbd0$|"']), max_size=3))
    def test_twice_is_once(self, entries: list[str]) -> None:
        once = templates.lvm_filtered(f"devices {{\n\tglobal_filter = [ {', '.join(entries)} ]\n}}\n", 0)
        assert once is not None and once.count("drbd") >= 1 and templates.lvm_filtered(once, 0) == once


class TestFirewall:
    @pytest.mark.parametrize(
        ("text", "on"),
        [
            ("[OPTIONS]\n\nenable: 1\n", True),
            ("[OPTIONS]\nenable: 0\n", False),
            ("[OPTIONS]\npolicy_in: DROP\n\n[RULES]\nenable: 1\n", False),
            ("[options]\n  Enable:1\n", True),
            ("[OPTIONS]\nenable: 1\nenable: 0\n", False),
            ("[OPTIONS]\n#enable: 1\nenable : 1\nenable: 1 # yes\n", False),
            ("[ALIASES]\nx 10.0.0.1\n [OPTIONS]\t\nenable: 1", True),
            ("", False),
        ],
    )
    def test_whether_it_is_on_is_what_its_options_say(self, text: str, on: bool) -> None:
        assert firewall.is_on(text) is on

    @pytest.mark.parametrize(
        ("text", "ways"),
        [
            ("[OPTIONS]\nenable: 1\n", ("IN",)),
            ("[OPTIONS]\npolicy_out: ACCEPT\n", ("IN",)),
            ("[OPTIONS]\nenable: 1\npolicy_out: DROP\n", ("IN", "OUT")),
            ("[options]\npolicy_out: REJECT\n\n[RULES]\n", ("IN", "OUT")),
            ("[RULES]\npolicy_out: DROP\n", ("IN",)),
        ],
    )
    def test_the_way_out_is_opened_where_it_is_shut(self, text: str, ways: tuple[str, ...]) -> None:
        assert templates.firewall_directions(text) == ways
        assert templates.firewall_rule(["b", "a"], 7789, "x", ways[-1]).startswith(f"{ways[-1]} ACCEPT -source a,b ")

    @given(
        st.sampled_from(["", "[OPTIONS]\nenable: 1\n", "[OPTIONS]\nenable: 1\n\n[RULES]\n\nIN ACCEPT\n", "[RULES]\n"])
    )
    def test_nothing_is_lost_and_twice_is_once(self, text: str) -> None:
        rules = [templates.firewall_rule(["10.10.10.2", "10.10.10.1"], port, "x") for port in (7789, 7777)]
        once = templates.with_rules(text, rules)
        assert templates.with_rules(once, rules) == once
        assert set(rules) | {line for line in text.splitlines() if line} <= set(once.splitlines())


class TestUdev:
    HIDDEN = 'ENV{UDISKS_IGNORE}="1", ENV{SYSTEMD_READY}="0"'
    WWN, EXTENDED, SERIAL = "ID_WWN=0x5", "ID_WWN_WITH_EXTENSION=0x51", "ID_SERIAL=DISK_S-1"
    ENTRY = "ID_PART_ENTRY_UUID=0fc63daf-8483-4772-8e79-3d69d8477de4"

    def rule(self, *told: str, kind: str = "disk") -> str | None:
        """The line of the rule, without what all have."""
        rule = templates.udev_rule("r0", world.disk(kind=kind, udev=told), "/dev/sdb", None)
        if rule is None:
            return None
        title, line, end = rule.split("\n")
        assert title.startswith("# ") and line.endswith(f", {self.HIDDEN}") and end == ""
        return line.removeprefix('SUBSYSTEM=="block", ').removesuffix(f", {self.HIDDEN}")

    def test_a_disk_is_named_by_the_most_certain_that_udev_tells(self) -> None:
        assert (
            self.rule(self.EXTENDED, self.WWN, self.SERIAL)
            == 'ENV{DEVTYPE}=="disk", ENV{ID_WWN_WITH_EXTENSION}=="0x51"'
        )
        assert self.rule(self.WWN, self.SERIAL) == 'ENV{DEVTYPE}=="disk", ENV{ID_WWN}=="0x5"'
        assert self.rule(self.SERIAL) == 'ENV{DEVTYPE}=="disk", ENV{ID_SERIAL}=="DISK_S-1"'

    @pytest.mark.parametrize(
        "told", [(), ('ID_SERIAL=x",RUN+="sh',), ("ID_SERIAL=S*",), ("ID_WWN=0x0000000000000000",), ("ID_SERIAL=none",)]
    )
    def test_a_disk_without_a_lasting_name_gets_none(self, told: tuple[str, ...]) -> None:
        assert self.rule(*told) is None and self.rule(*told, "PARTN=1", kind="part") is None
        assert self.rule(*told, self.SERIAL) is not None or "ID_SERIAL" in told[0]

    def test_a_partition_is_hidden_alone(self) -> None:
        assert self.rule(self.WWN, self.SERIAL, self.ENTRY, "PARTN=2", kind="part") == (
            'ENV{DEVTYPE}=="partition", ENV{ID_PART_ENTRY_UUID}=="0fc63daf-8483-4772-8e79-3d69d8477de4"'
        )
        assert self.rule(self.WWN, self.SERIAL, "PARTN=2", kind="part") == (
            'ENV{DEVTYPE}=="partition", ENV{ID_WWN}=="0x5", ENV{PARTN}=="2"'
        )
        none = "ID_PART_ENTRY_UUID=00000000-02"
        assert self.rule(self.SERIAL, none, "PARTN=2", kind="part") == (
            'ENV{DEVTYPE}=="partition", ENV{ID_SERIAL}=="DISK_S-1", ENV{PARTN}=="2"'
        )
        assert self.rule(none, "PARTN=2", kind="part") is None and self.rule(self.WWN, kind="part") is None

    def test_a_logical_volume_is_named_by_its_own_name(self) -> None:
        rule = str(templates.udev_rule("r0", world.disk(), "/dev/mirror/r0", ("mirror", "r0")))
        assert 'ENV{DM_VG_NAME}=="mirror", ENV{DM_LV_NAME}=="r0"' in rule
        assert templates.udev_rule("r0", world.disk(), "/dev/a/b", ("a*", "b")) is None

    def test_a_world_wide_name_that_udev_does_not_tell_is_in_no_rule(self) -> None:
        """As of a disk whose sysfs has `t10.ATA_...`, which udev sets nowhere."""
        disk = world.disk(identity="wwn=t10.ATA_DISK_S1 serial=DISK_S1", udev=("ID_SERIAL=DISK_S1",))
        found = {**world.nodes(), "pve1": world.facts(1, disks=(disk,))}
        (rule, _) = rules(world.planned(found, lvm=False))
        assert 'ENV{ID_SERIAL}=="DISK_S1"' in rule and "t10" not in rule.split("\n")[1]

    def test_where_none_can_be_written_the_plan_says_so(self) -> None:
        plan = world.planned(world.nodes(disks=(world.disk(udev=()),)), lvm=False)
        assert rules(plan) == [] and sum("no rule of udev" in note for note in plan.notes) == 2
        plan = world.planned(lvm=False)
        assert len(rules(plan)) == 2 and not any("no rule of udev" in note for note in plan.notes)

    def test_a_partition_gets_its_rule_in_the_plan(self) -> None:
        part = world.disk(kind="part", path="/dev/sdb1", udev=(self.WWN, self.ENTRY, "PARTN=1"))
        plan = world.planned(world.nodes(disks=(part,)), lvm=False, disks={"pve1": "/dev/sdb1", "pve2": "/dev/sdb1"})
        assert len(rules(plan)) == 2 and all('"partition"' in rule for rule in rules(plan))


def rules(plan: Plan) -> list[str]:
    return [file.content for step in plan.steps for file in step.files if file.path.startswith("/etc/udev/")]
