"""Who has a disk: guests that run or not, LVM, DRBD, another path to it. What is not known is never taken for nobody."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pvedrbdstor import command
from pvedrbdstor.pve import guests, section_config
from pvedrbdstor.setup import disks, look, users
from pvedrbdstor.setup.facts import Disk, Identity
from pvedrbdstor.setup.users import Index, Named, Users
from tests.loopback import Loopback
from tests.setup import world

STORAGES = (
    "lvm: slow\n\tvgname data\n\tcontent images\n\n"
    "lvmthin: fast\n\tthinpool pool\n\tvgname pve\n\n"
    "iscsi: san\n\tportal 192.0.2.1\n\ttarget iqn.x\n\n"
    "dir: local\n\tpath /var/lib/vz\n"
)


@pytest.fixture(scope="module")
def loop() -> Iterator[Loopback]:
    with Loopback(8) as made:
        yield made


def found(path: str, had: Users) -> Disk:
    return next(disk for disk in disks.look(had) if disk.path == path)


def number(path: str) -> tuple[int, int]:
    rdev = os.stat(path).st_rdev
    return os.major(rdev), os.minor(rdev)


class TestPrograms:
    def test_one_that_holds_a_device_open_without_exclusion_as_qemu_does_has_it(self, loop: Loopback) -> None:
        with open(loop.device, "rb") as held:
            child = subprocess.Popen(["sleep", "60"], stdin=held)
        try:
            had = found(loop.device, users.look()).users
            assert had == (f"'sleep', process {child.pid}, has it open",)
        finally:
            child.kill()
            child.wait()
        assert found(loop.device, users.look()).users == ()

    def test_a_loop_device_over_a_device_has_it(self, loop: Loopback) -> None:
        made = subprocess.run(["losetup", "--find", "--show", loop.device], check=True, capture_output=True, text=True)
        upper = made.stdout.strip()
        try:
            assert found(loop.device, users.look()).users == (f"it is below {upper}",)
        finally:
            subprocess.run(["losetup", "--detach", upper], check=True)


class TestGuests:
    @pytest.mark.parametrize(
        ("line", "device"),
        [
            ("scsi0: slow:vm-100-disk-0,size=8G", "/dev/data/vm-100-disk-0"),
            ("rootfs: fast:subvol-9,size=8G", "/dev/pve/subvol-9"),
            ("virtio1: /dev/disk/by-id/wwn-0x5,backup=0", "/dev/disk/by-id/wwn-0x5"),
            ("scsi2: san:0.0.1.scsi-3600,size=8G", "/dev/disk/by-id/scsi-3600"),
            ("unused0: slow:vm-100-disk-7", "/dev/data/vm-100-disk-7"),
        ],
    )
    def test_a_volume_is_the_device_that_its_storage_makes_of_it(self, line: str, device: str) -> None:
        assert users.named_in(f"name: db\n{line}\n", section_config.parse(STORAGES)) == {device}

    def test_what_is_on_no_device_names_none(self) -> None:
        text = "net0: virtio=BC:24:11:00:00:01,bridge=vmbr0\nscsi0: local:100/vm-100-disk-0.raw\n"
        assert not users.named_in(text, section_config.parse(STORAGES))

    @pytest.mark.parametrize(
        "name", ["vm-100-disk-0", "base-100-disk-0", "snap_vm-100-disk-0_before", "vm-100-cloudinit"]
    )
    def test_a_volume_of_a_guest_s_name_is_the_guest_s(self, name: str) -> None:
        assert users.guest_volume(f"/dev/pve/{name}") == "its name is that of a volume of guest 100"
        assert users.guest_volume("/dev/mirror/r0") is None

    def test_without_their_configurations_nothing_is_known(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(guests, "NODES", str(tmp_path / "nodes"))
        with pytest.raises(FileNotFoundError):
            users.of_guests("")
        folder = tmp_path / "nodes" / "pve1" / "qemu-server"
        (folder / "100.conf").mkdir(parents=True)  # cannot be read, whoever tries
        with pytest.raises(IsADirectoryError):
            users.of_guests("")
        named, why = look._guests("")
        assert not named and why is not None and "100.conf" in why


class TestLvm:
    def test_a_physical_volume_belongs_to_its_group_whatever_else_is_told(self) -> None:
        text = (
            '{"report": [{"pv": [{"pv_name":"/dev/sdb", "vg_name":"theirs"}, {"pv_name":"/dev/sdc", "vg_name":""}]}]}'
        )
        assert users.physical_volumes(text) == [("/dev/sdb", "theirs"), ("/dev/sdc", "")]
        with pytest.raises(OSError, match="pvs"):
            users.physical_volumes("  WARNING")

    def test_one_of_a_group_and_one_that_pvs_does_not_tell_of_are_somebody_s(
        self, loop: Loopback, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(disks, "signatures", lambda path: ("LVM2_member",) if path == loop.device else ())
        nobody = Index({}, {})
        here = number(loop.device)
        assert found(loop.device, Users(nobody, nobody, {here: ""})).users == ()
        (hidden,) = found(loop.device, Users(nobody, nobody, {})).users
        assert "does not tell of which volume group" in hidden

    def test_pvs_is_asked(self, loop: Loopback, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        program = tmp_path / "pvs"
        answer = f'{{"report": [{{"pv": [{{"pv_name":"{loop.device}", "vg_name":"theirs"}}]}}]}}'
        program.write_text(f"#!/bin/sh\necho '{answer}'\n")
        program.chmod(0o755)
        monkeypatch.setattr(command, "PATH", f"{tmp_path}:{command.PATH}")
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        assert shutil.which("pvs", path=command.PATH) == str(program)
        had = users.look()
        assert found(loop.device, had).users == ("it is a physical volume of LVM's volume group 'theirs'",)
        assert set(had.volumes.values()) == {"theirs"}


class TestDrbd:
    def test_lower_disks_and_metadata_of_this_node_s_resources_are_theirs(self) -> None:
        file = (
            "resource r7 { volume 0 { device minor 7; disk /dev/sdb; meta-disk /dev/sdc[0]; }\n"
            " on pve1 { disk /dev/sdd; } on pve2 { disk /dev/sde; } }\n"
        )
        show = 'resource up { _this_host { volume 0 { device minor 1; disk "/dev/sdf"; meta-disk internal; } } }\n'
        named = users.of_drbd([file, show], "pve1")
        assert {(each.name.partition("[")[0], each.user) for each in named} == {
            ("/dev/sdb", "r7"),
            ("/dev/sdc", "r7"),
            ("/dev/sdd", "r7"),
            ("/dev/sdf", "up"),
        }

    def test_a_disk_by_another_of_its_names_is_the_same(self, loop: Loopback, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to(loop.device)
        had = users.look(drbd=[Named(str(link), "r7")])
        assert found(loop.device, had).drbd == ("r7",)


class TestPartitions:
    @pytest.fixture
    def parted(self, loop: Loopback) -> Iterator[tuple[str, str]]:
        """A loop device with a partition, whose node this makes where no udev does."""
        subprocess.run(["sfdisk", "--quiet", loop.device], input="2048,4096\n", text=True, check=True)
        subprocess.run(["partx", "--add", loop.device], check=False, capture_output=True)
        part = f"{loop.device}p1"
        if not os.path.exists(part):
            major, minor = Path(f"/sys/class/block/{os.path.basename(part)}/dev").read_text().split(":")
            os.mknod(part, 0o600 | stat.S_IFBLK, os.makedev(int(major), int(minor)))
            made = True
        else:
            made = False
        try:
            yield loop.device, part
        finally:
            if made:
                os.unlink(part)
            subprocess.run(["partx", "--delete", loop.device], check=False, capture_output=True)
            subprocess.run(["wipefs", "--all", "--quiet", loop.device], check=True)

    def test_who_has_the_whole_has_its_partition_and_the_other_way_round(self, parted: tuple[str, str]) -> None:
        whole, part = parted
        for named, other in ((whole, part), (part, whole)):
            had = users.look([Named(named, "it is theirs")], [Named(named, "r7")])
            assert found(named, had).users == ("it is theirs",)
            assert found(other, had).users == (f"{named}: it is theirs",)
            assert found(other, had).drbd == ("r7",)


class TestIdentity:
    def test_who_has_a_disk_by_one_path_has_it_by_the_other(self) -> None:
        one, other = world.disk(), world.disk(path="/dev/sdc", names=("/dev/sdc",), users=("it is swap space",))
        part = world.disk(path="/dev/sdc1", names=(), identity=f"{one.identity} part=1", users=("a",))
        first, *_ = disks.same_disks([one, other, part])
        assert first.users == ("/dev/sdc, the same disk: it is swap space",)

    def test_it_has_both_names_and_none_that_says_nothing(self) -> None:
        words = Identity(wwn="0x5000c5", serial="MODEL X_1", part="2").words()
        assert words == "wwn=0x5000c5 serial=MODEL_X_1 part=2"
        assert Identity.parse(words) == Identity(wwn="0x5000c5", serial="MODEL_X_1", part="2")
        for zero in ("0x0000000000000000", "eui.0000000000000000", "naa.0000000000000000"):
            assert Identity(wwn=zero, serial="S").words() == "serial=S"
            assert Identity(wwn=zero, part="1").words() is None
        for none in ("(null)", "0000000000", "None", "N/A", "Unknown", "To be filled by O.E.M.", " "):
            assert Identity(serial=none, part="1").words() is None

    def test_the_world_wide_name_counts_before_the_serial(self) -> None:
        one = Identity(wwn="0x1", serial="S")
        assert one.is_of_one_disk("wwn=0x1 serial=T part=1") and not one.is_of_one_device("wwn=0x1 part=1")
        assert not one.is_of_one_disk("wwn=0x2 serial=S") and one.is_of_one_disk("serial=S")
        assert not Identity().is_of_one_disk(None)
        slot = Identity(serial="0QEMU_QEMU_HARDDISK_drive-scsi1")
        assert not slot.is_of_one_disk(slot.words()), "each virtual machine has such a one"

    def test_volumes_of_one_group_are_on_one_disk_and_not_one_device(self) -> None:
        one, other = (Identity(mapped=f"LVM-{'g' * 32}{letter * 32}") for letter in "ab")
        assert one.is_of_one_disk(other.words()) and not one.is_of_one_device(other.words())
        assert not one.is_of_one_disk(f"mapped=LVM-{'h' * 32}{'a' * 32}") and not one.is_of_one_disk("wwn=0x1")
        assert Identity(mapped="mpath-36001").is_of_one_disk("wwn=0x6001")
        assert not Identity(mapped="mpath-36001").is_of_one_device("wwn=0x6001")

    def test_it_can_be_asked_of_a_device_at_any_time(self, loop: Loopback) -> None:
        assert disks.identity(loop.device) == found(loop.device, users.look()).identity
        with pytest.raises(OSError):
            disks.identity("/dev/null")


def test_what_udev_itself_tells_is_kept_apart(loop: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"ID_WWN": "0x5", "ID_SERIAL": "S", "ID_MODEL": "M", "ID_PART_ENTRY_UUID": "", "PARTN": "1"}
    real = disks._device
    monkeypatch.setattr(disks, "_device", lambda device: replace(real(device), properties=told))
    assert found(loop.device, users.look()).udev == ("ID_WWN=0x5", "ID_SERIAL=S", "PARTN=1")
    monkeypatch.setattr(disks, "_device", lambda device: replace(real(device), properties={}))
    assert found(loop.device, users.look()).udev == (), "what sysfs has is not udev's"


def test_a_label_cannot_act_on_the_terminal(loop: Loopback) -> None:
    subprocess.run(["mkfs.ext4", "-q", "-F", "-L", "\x1b[2Jx", loop.device], check=True)
    try:
        (word,) = disks.signatures(loop.device)
    finally:
        subprocess.run(["wipefs", "--all", "--quiet", loop.device], check=True)
    assert word.isprintable() and "[2Jx" in word
