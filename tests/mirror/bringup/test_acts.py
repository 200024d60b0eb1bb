"""What is run for each step, on a machine of the test's own: commands are recorded and answered, files are real."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pvedrbdstor import command, native
from pvedrbdstor.command import Result
from pvedrbdstor.errors import CannotTakeDown, CommandFailed, SystemCallFailed
from pvedrbdstor.mirror import readers
from pvedrbdstor.mirror.bringup import down, execute, gather, holders, lock, mounting, paths
from pvedrbdstor.mirror.bringup.facts import MountPoint, Step
from pvedrbdstor.ocfs2 import o2cb
from tests.loopback import Loopback
from tests.mirror.bringup.situations import CONFIG, DEFAULTS, READY, SUPERBLOCK

PRIMARY = "exists resource name:r0 role:Primary suspended:no\nexists -\n"


@dataclass
class Commands:
    """Answers what command.run is asked: by the beginning of the command line; status 0 and nothing said by default."""

    answers: dict[str, Result | Exception] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def run(self, argv: Sequence[str], *, timeout: float, check: bool = True, **_: Any) -> Result:
        assert timeout > 0
        line = " ".join(argv)
        self.lines.append(line)
        found = next((answer for start, answer in self.answers.items() if line.startswith(start)), Result(0, "", ""))
        if isinstance(found, Exception):
            raise found
        if check and found.status:
            raise CommandFailed(command=line, status=f"exit status {found.status}", output=found.stderr)
        return found


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Commands:
    made = Commands()
    monkeypatch.setattr(command, "run", made.run)
    monkeypatch.setattr(mounting, "SYSTEMD", str(tmp_path / "systemd"))
    monkeypatch.setattr(paths, "FOLDER", str(tmp_path / "bringup"))
    monkeypatch.setattr(readers, "FOLDER", str(tmp_path / "readers"))
    return made


class TestSteps:
    @pytest.mark.parametrize(
        ("step", "line"),
        [
            (Step.CONNECT, "drbdadm connect r0"),
            (Step.PROMOTE, "drbdadm primary r0"),
            (Step.CONFIGFS, "mount -t configfs configfs /sys/kernel/config"),
            (Step.REGISTER, "o2cb register-cluster pve"),
        ],
    )
    def test_run_one_command(self, commands: Commands, step: Step, line: str) -> None:
        execute.execute(step, READY, CONFIG)
        assert commands.lines == [line]

    @pytest.mark.parametrize("step", [Step.WAIT_PEER, Step.WAIT_COPIES])
    def test_that_wait_run_nothing(self, commands: Commands, step: Step) -> None:
        execute.execute(step, READY, CONFIG)
        assert commands.lines == []

    def test_modules_are_loaded_one_by_one(self, commands: Commands) -> None:
        execute.execute(Step.MODULES, replace(READY, missing_modules=("drbd", "ocfs2")), CONFIG)
        assert commands.lines == ["modprobe drbd", "modprobe ocfs2"]

    def test_a_resource_that_is_not_there_is_brought_up(self, commands: Commands) -> None:
        execute.execute(Step.UP, READY, CONFIG)
        assert commands.lines[-1] == "drbdadm up r0"

    def test_a_resource_that_is_half_there_is_adjusted(self, commands: Commands) -> None:
        commands.answers["drbdsetup events2"] = Result(0, PRIMARY, "")
        execute.execute(Step.UP, READY, CONFIG)
        assert commands.lines[-1] == "drbdadm adjust r0"

    def test_timeouts_are_written_to_the_kernels_files(
        self, commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cluster = tmp_path / "cluster" / "pve"
        (cluster / "heartbeat").mkdir(parents=True)
        present = {"heartbeat/dead_threshold": "7", "idle_timeout_ms": "30000", "keepalive_delay_ms": "2000"}
        for name, value in {**present, "reconnect_delay_ms": "2000"}.items():
            (cluster / name).write_text(f"{value}\n")
        monkeypatch.setattr(o2cb, "CONFIGFS", str(tmp_path / "cluster"))
        execute.execute(Step.TIMEOUTS, READY, CONFIG)
        assert (cluster / "heartbeat/dead_threshold").read_text() == "31"
        assert gather.registered("pve").timeouts == DEFAULTS.timeouts

    def test_no_command_forces_anything(self, commands: Commands, tmp_path: Path) -> None:
        config = replace(CONFIG, path=str(tmp_path / "ha"))
        for step in set(Step) - {Step.STACK, Step.DLMFS, Step.TIMEOUTS}:
            execute.execute(step, replace(READY, missing_modules=("drbd",)), config)
        unlocked(tmp_path / "ha")
        execute.demote("r0")
        forbidden = ("--force", "--overwrite", "--discard", "invalidate", "mkfs", "create-md", "new-current", "resume")
        assert commands.lines
        assert not [line for line in commands.lines if any(word in line for word in forbidden)]


class TestMounting:
    def test_the_folder_is_made_and_the_device_mounted(self, commands: Commands, tmp_path: Path) -> None:
        path = tmp_path / "mnt" / "pve" / "ha"
        mounting.mount(replace(CONFIG, path=str(path)), 3)
        assert path.is_dir()
        options = "noatime,data=ordered,errors=remount-ro"
        assert commands.lines == [f"mount -t ocfs2 -o {options} /dev/drbd3 {path}"]
        unlocked(path)

    def test_the_folder_is_immutable_while_nothing_is_mounted(self, commands: Commands) -> None:
        with Loopback(320, kind="xfs") as loopback:
            path = loopback.path / "ha"
            mounting.mount(replace(CONFIG, path=str(path)), 0)
            with pytest.raises(PermissionError):
                (path / "stray").touch()
            mounting.mount(replace(CONFIG, path=str(path)), 0)  # and is no obstacle for the next time
            unlocked(path)

    def test_a_folder_that_is_not_empty_is_not_mounted_on(self, commands: Commands, tmp_path: Path) -> None:
        (tmp_path / "image").touch()
        with pytest.raises(SystemCallFailed, match=f"Preparing of {tmp_path} failed: Directory not empty"):
            mounting.mount(replace(CONFIG, path=str(tmp_path)), 0)
        assert commands.lines == []

    def test_systemd_is_told_to_mount_where_it_is_pid_1(self, commands: Commands, tmp_path: Path) -> None:
        (tmp_path / "systemd").mkdir()
        commands.answers["systemd-escape"] = Result(0, "mnt-ha.mount\n", "")
        path = tmp_path / "ha"
        mounting.mount(replace(CONFIG, path=str(path)), 0)
        unlocked(path)
        assert commands.lines[1:] == ["systemctl daemon-reload", "systemctl start mnt-ha.mount"]
        unit = (tmp_path / "systemd" / "mnt-ha.mount").read_text()
        for line in ("What=/dev/drbd0", f"Where={path}", "Type=ocfs2"):
            assert line in unit.splitlines()
        assert "Options=noatime,data=ordered,errors=remount-ro,_netdev" in unit

    def test_a_mount_unit_that_fails_is_told_with_its_log(self, commands: Commands, tmp_path: Path) -> None:
        (tmp_path / "systemd").mkdir()
        commands.answers |= {
            "systemd-escape": Result(0, "mnt-ha.mount\n", ""),
            "systemctl start": Result(1, "", "Job for mnt-ha.mount failed."),
            "journalctl": Result(0, "mount.ocfs2: Transport endpoint is not connected\n", ""),
        }
        path = tmp_path / "ha"
        with pytest.raises(CommandFailed, match=r"mount\.ocfs2: Transport endpoint is not connected"):
            mounting.mount(replace(CONFIG, path=str(path)), 0)
        unlocked(path)

    def test_what_systemd_did_not_mount_is_unmounted_by_hand(self, commands: Commands, tmp_path: Path) -> None:
        (tmp_path / "systemd").mkdir()
        commands.answers |= {
            "systemd-escape": Result(0, "mnt-pve-ha.mount\n", ""),
            "systemctl is-active": Result(3, "inactive\n", ""),
        }
        mounting.unmount(CONFIG)
        assert commands.lines[-1] == "umount /mnt/pve/ha"


def unlocked(path: Path) -> None:
    """Make a folder removable again."""
    fd = os.open(path, os.O_RDONLY)
    try:
        native.set_immutable(fd, False)
    except OSError:
        pass  # a file system that knows no such flag
    finally:
        os.close(fd)


class TestLooking:
    @pytest.mark.parametrize(
        ("make", "expected"),
        [
            (lambda path: None, MountPoint(False, False)),
            (lambda path: path.touch(), MountPoint(True, False)),
            (lambda path: path.mkdir(), MountPoint(True, True)),
        ],
    )
    def test_at_the_mount_point(self, tmp_path: Path, make: Any, expected: MountPoint) -> None:
        make(tmp_path / "ha")
        assert gather.mount_point(str(tmp_path / "ha")) == expected

    def test_at_a_full_mount_point_names_a_few(self, tmp_path: Path) -> None:
        for name in "dcba":
            (tmp_path / name).touch()
        assert gather.mount_point(str(tmp_path)).content == ("a", "b", "c", "...")

    def test_at_a_machine_without_anything(self, commands: Commands, tmp_path: Path) -> None:
        now = gather.gather(replace(CONFIG, path=str(tmp_path / "ha")))
        assert not now.mounted and now.wrong_mount is None
        assert not now.point.exists
        assert "drbd" in now.missing_modules or now.mirror.drbd is None

    def test_at_the_slots_only_where_they_can_be_too_few(self, commands: Commands) -> None:
        commands.answers["debugfs.ocfs2"] = Result(0, "\tSlot#\tNode#\n\t    0\t    1\n", "")
        assert gather._slots_taken(SUPERBLOCK, READY.conf, 0) is None
        assert commands.lines == []
        assert gather._slots_taken(replace(SUPERBLOCK, slots=1), READY.conf, 0) == {1}

    def test_at_a_resource_that_is_not_configured(self, commands: Commands) -> None:
        commands.answers["drbdadm dump"] = Result(10, "", "'r0' not defined in your config (for this host).\n")
        assert gather._defined(CONFIG) == (False, "'r0' not defined in your config (for this host)")


class TestHolders:
    def test_are_processes_with_open_files_by_name(self, tmp_path: Path) -> None:
        with (tmp_path / "disk.raw").open("w") as file:
            user = subprocess.Popen(["sleep", "60"], stdin=file, stdout=subprocess.DEVNULL)
            try:
                assert holders.holders(str(tmp_path)) == [f"sleep (process {user.pid})"]
            finally:
                user.kill()
                user.wait()

    def test_are_guests_by_number(self, tmp_path: Path) -> None:
        guest = subprocess.Popen(
            ["/usr/bin/kvm", "-c", "import time; time.sleep(60)", "-id", "100"],
            executable="/usr/bin/python3",
            cwd=tmp_path,
        )
        try:
            deadline = time.monotonic() + 5
            expected = [f"VM 100 (kvm, process {guest.pid})"]
            while holders.holders(str(tmp_path)) != expected and time.monotonic() < deadline:
                time.sleep(0.02)
            assert holders.holders(str(tmp_path)) == expected
        finally:
            guest.kill()
            guest.wait()

    def test_are_not_those_of_a_neighbour_with_a_longer_name(self, tmp_path: Path) -> None:
        (tmp_path / "ha2").mkdir()
        user = subprocess.Popen(["sleep", "60"], cwd=tmp_path / "ha2")
        try:
            assert holders.holders(str(tmp_path / "ha")) == []
        finally:
            user.kill()
            user.wait()


class TestTakingDown:
    @pytest.fixture
    def up(self, commands: Commands, monkeypatch: pytest.MonkeyPatch) -> Commands:
        """A storage that is mounted, on a resource that is Primary until it is told not to be."""
        monkeypatch.setattr(down, "_is_mounted", lambda config: True)
        monkeypatch.setattr(down, "_PAUSE", 0.01)
        monkeypatch.setattr(down, "_BUSY_SECONDS", 0.05)
        commands.answers["drbdsetup events2"] = Result(0, PRIMARY, "")
        return commands

    def test_unmounts_then_demotes_and_leaves_drbd_up(self, up: Commands) -> None:
        down.take_down(CONFIG, stop=False)
        assert [line for line in up.lines if "events2" not in line] == ["umount /mnt/pve/ha", "drbdadm secondary r0"]
        assert os.path.exists(paths.hold("ha"))

    def test_takes_drbd_down_when_asked(self, up: Commands) -> None:
        down.take_down(CONFIG, stop=True)
        assert up.lines[-1] == "drbdadm down r0"

    def test_names_who_is_in_the_way_and_leaves_the_storage_up(
        self, up: Commands, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        up.answers["umount"] = Result(32, "", "target is busy")
        monkeypatch.setattr(holders, "holders", lambda path, beside=(): [f"VM {number}" for number in range(100, 107)])
        with pytest.raises(CannotTakeDown, match=r"in use by VM 100, .*VM 104 and 2 more\. Stop or move them"):
            down.take_down(CONFIG, stop=True)
        assert not os.path.exists(paths.hold("ha"))
        assert set(up.lines) == {"umount /mnt/pve/ha"}

    def test_tries_again_while_the_kernel_still_closes_the_device(
        self, up: Commands, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tries = []

        def run(argv: Sequence[str], **options: Any) -> Result:
            if list(argv) == ["drbdadm", "secondary", "r0"]:
                tries.append(argv)
                if len(tries) < 3:
                    raise CommandFailed(command="drbdadm secondary r0", status="exit status 11", output="held open")
            return up.run(argv, **options)

        monkeypatch.setattr(command, "run", run)
        down.take_down(CONFIG, stop=False)
        assert len(tries) == 3

    def test_tells_when_the_device_stays_open(self, up: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(down, "_DEMOTE_SECONDS", 0.05)
        up.answers["drbdadm secondary"] = Result(11, "", "State change failed: (-12) Device is held open by someone")
        with pytest.raises(CannotTakeDown, match=r"DRBD stays Primary \(State change failed: \(-12\)"):
            down.take_down(CONFIG, stop=False)

    def test_ends_a_comparison_between_the_unmount_and_the_demotion(
        self, up: Commands, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def let_go(storage: str, report: Callable[[str], None]) -> tuple[int, ...]:
            up.lines.append(f"let go of {storage}")
            report("ending the comparison")
            return ()

        monkeypatch.setattr(readers, "let_go", let_go)
        told: list[str] = []
        down.take_down(CONFIG, stop=True, report=told.append)
        assert [line for line in up.lines if "events2" not in line] == [
            "umount /mnt/pve/ha",
            "let go of ha",
            "drbdadm secondary r0",
            "drbdadm down r0",
        ]
        assert told == ["unmounting", "ending the comparison", "becoming Secondary", "taking DRBD down"]

    def test_names_a_comparison_that_does_not_end(self, up: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(down, "_DEMOTE_SECONDS", 0.05)
        monkeypatch.setattr(readers, "let_go", lambda storage, report: (4711,))
        up.answers["drbdadm secondary"] = Result(11, "", "State change failed: (-12) Device is held open by someone")
        with pytest.raises(CannotTakeDown, match=r"asked to end still reads it \(process 4711\)\. Its disk may hang"):
            down.take_down(CONFIG, stop=False)

    def test_ends_a_comparison_that_is_all_that_keeps_the_mount_busy(
        self, up: Commands, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reading = [4711]

        def let_go(storage: str, report: Callable[[str], None]) -> tuple[int, ...]:
            up.answers.pop("umount", None)
            reading.clear()
            return ()

        up.answers["umount"] = Result(32, "", "target is busy")
        monkeypatch.setattr(readers, "processes", lambda storage: tuple(reading))
        monkeypatch.setattr(readers, "let_go", let_go)
        monkeypatch.setattr(holders, "holders", lambda path, beside=(): [] if 4711 in beside else ["pvedrbdstor"])
        down.take_down(CONFIG, stop=False)
        assert up.lines[-1] == "drbdadm secondary r0"

    def test_leaves_a_comparison_alone_where_a_guest_is_in_the_way(
        self, up: Commands, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        up.answers["umount"] = Result(32, "", "target is busy")
        monkeypatch.setattr(readers, "processes", lambda storage: (4711,))
        monkeypatch.setattr(readers, "let_go", lambda storage, report: pytest.fail("it was ended"))
        monkeypatch.setattr(holders, "holders", lambda path, beside=(): ["VM 100"])
        with pytest.raises(CannotTakeDown, match="in use by VM 100"):
            down.take_down(CONFIG, stop=False)

    @pytest.mark.parametrize(("stop", "words"), [(False, "goes on"), (True, "ends with the connection")])
    def test_says_what_becomes_of_a_verify_of_drbds_own(self, up: Commands, stop: bool, words: str) -> None:
        verifying = (
            "exists resource name:r0 role:Primary suspended:no\n"
            "exists connection name:r0 peer-node-id:1 conn-name:b connection:Connected role:Primary\n"
            "exists peer-device name:r0 peer-node-id:1 conn-name:b volume:0 replication:VerifyS peer-disk:UpToDate\n"
            "exists -\n"
        )
        up.answers["drbdsetup events2"] = Result(0, verifying, "")
        told: list[str] = []
        down.take_down(CONFIG, stop=stop, report=told.append)
        assert any(line.startswith("DRBD's own verify, which runs,") and words in line for line in told)

    def test_waits_for_a_job_and_does_not_work_beside_it(self, up: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(down, "_LOCK_SECONDS", 0.1)
        held = lock.take("ha")
        assert held is not None
        with pytest.raises(CannotTakeDown, match="just being brought up"):
            down.take_down(CONFIG, stop=False)
        os.close(held)
        assert up.lines == []
