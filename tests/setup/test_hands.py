"""One step on a node, with real devices and files: it looks once more before it writes, and leaves alone what is not as planned."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvedrbdstor.pve import guests
from pvedrbdstor.setup import disks, exact, hands, paths, states, users
from pvedrbdstor.setup.hands import Outcome, carry_out
from pvedrbdstor.setup.steps import Kind, NotNow, Step
from tests.loopback import Loopback

MIB = 8


@pytest.fixture(autouse=True)
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "lock" / "setup"
    monkeypatch.setattr(paths, "LOCK", str(path))
    return path


@pytest.fixture(scope="module")
def loop() -> Iterator[Loopback]:
    with Loopback(MIB) as made:
        yield made


@pytest.fixture
def device(loop: Loopback) -> str:
    subprocess.run(["wipefs", "--all", "--quiet", loop.device], check=True)
    return loop.device


def make_ext4(device: str) -> None:
    subprocess.run(["mkfs.ext4", "-q", "-F", device], check=True)


def metadata(device: str, marker: Path, **about: str) -> Step:
    """A step that would write to a device; what it runs only leaves a mark."""
    told = {"device": device, "size": str(MIB << 20), "resource": "r0", **about}
    return Step("a.metadata", "a", Kind.METADATA, "t", "w", (("touch", str(marker)),), about=told)


class TestDevices:
    def test_an_empty_one_that_nobody_has_is_taken(self, device: str, tmp_path: Path) -> None:
        assert carry_out(metadata(device, tmp_path / "ran"), False) == Outcome()
        assert (tmp_path / "ran").exists()

    @pytest.mark.parametrize("again", [False, True])
    @pytest.mark.parametrize("mkfs", [("mkfs.ext4", "-q", "-F"), ("mkswap",)])
    def test_one_that_got_something_since_the_plan_is_left_alone(
        self, device: str, tmp_path: Path, mkfs: tuple[str, ...], again: bool
    ) -> None:
        subprocess.run([*mkfs, device], check=True, capture_output=True)
        failure = carry_out(metadata(device, tmp_path / "ran"), again).failure
        assert failure is not None and "not empty any more" in failure
        assert not (tmp_path / "ran").exists()

    def test_one_that_somebody_has_is_left_alone(self, device: str, tmp_path: Path) -> None:
        fd = os.open(device, os.O_RDONLY | os.O_EXCL)
        try:
            failure = carry_out(metadata(device, tmp_path / "ran"), True).failure
        finally:
            os.close(fd)
        assert failure is not None and "in use" in failure and not (tmp_path / "ran").exists()

    def test_one_of_another_size_is_another(self, device: str, tmp_path: Path) -> None:
        failure = carry_out(metadata(device, tmp_path / "ran", size="4096"), False).failure
        assert failure is not None and "another device" in failure and not (tmp_path / "ran").exists()

    def test_drbd_s_own_metadata_are_in_the_way_unless_this_step_had_begun(self, device: str, tmp_path: Path) -> None:
        subprocess.run(
            ["drbdmeta", "--force", "0", "v08", device, "internal", "create-md"],
            check=True,
            capture_output=True,
            timeout=60,
        )
        assert "drbd" in disks.signatures(device)
        assert carry_out(metadata(device, tmp_path / "ran"), False).failure is not None
        assert carry_out(metadata(device, tmp_path / "ran"), True).failure is None

    def wipe(self, device: str, **about: str) -> Step:
        told = {"device": device, "size": str(MIB << 20), "signatures": "ext4", **about}
        return Step("a.wipe", "a", Kind.WIPE, "t", "w", (("wipefs", "--all", "--quiet", device),), about=told)

    def test_only_what_was_shown_is_wiped(self, device: str) -> None:
        make_ext4(device)
        shown = self.wipe(device, exact=exact.record(device))
        assert carry_out(shown, False).failure is None and not disks.signatures(device)

    def test_without_an_exact_record_nothing_is_wiped(self, device: str) -> None:
        make_ext4(device)
        outcome = carry_out(self.wipe(device), False)
        assert outcome.failure is not None and outcome.untouched and disks.signatures(device) == ("ext4",)

    @pytest.mark.parametrize("again", [False, True])
    def test_a_file_system_of_the_same_kind_made_since_the_plan_stays(self, device: str, again: bool) -> None:
        make_ext4(device)
        shown = self.wipe(device, exact=exact.record(device))
        make_ext4(device)
        outcome = carry_out(shown, again)
        assert outcome.failure is not None and outcome.untouched and disks.signatures(device) == ("ext4",)

    @pytest.mark.parametrize("again", [False, True])
    def test_one_that_was_used_since_the_plan_stays(self, device: str, tmp_path: Path, again: bool) -> None:
        make_ext4(device)
        shown = self.wipe(device, exact=exact.record(device))
        mount = tmp_path / "mnt"
        mount.mkdir()
        subprocess.run(["mount", device, str(mount)], check=True)
        (mount / "file").write_text("theirs")
        subprocess.run(["umount", str(mount)], check=True)
        outcome = carry_out(shown, again)
        assert outcome.failure is not None and outcome.untouched and disks.signatures(device) == ("ext4",)

    def test_a_wipe_that_was_interrupted_goes_on_with_what_is_left(self, device: str) -> None:
        words = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", device]
        subprocess.run(words, input=b"label: gpt\n", check=True, capture_output=True)
        shown = self.wipe(device, exact=exact.record(device))
        first = json.loads(shown.about["exact"])[""]["signatures"][0][0]
        subprocess.run(["wipefs", "--quiet", "--offset", first, device], check=True)
        assert disks.signatures(device)
        assert carry_out(shown, False).failure is not None
        assert carry_out(shown, True).failure is None and not disks.signatures(device)

    def test_another_device_under_the_name_is_left_alone(
        self, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        step = metadata(device, tmp_path / "ran", identity="0x5000000000000001")
        monkeypatch.setattr(exact, "identity", lambda path: "0x5000000000000002")
        failure = carry_out(step, True).failure
        assert failure is not None and "another device" in failure and not (tmp_path / "ran").exists()
        monkeypatch.setattr(exact, "identity", lambda path: "0x5000000000000001")
        assert carry_out(step, False).failure is None

    def test_what_names_a_device_is_what_facts_say_of_it(self, device: str, tmp_path: Path) -> None:
        (found,) = [disk for disk in disks.look() if disk.path == device]
        assert exact.identity(device) == found.identity
        with pytest.raises(NotNow, match="no block device"):
            exact.identity(str(tmp_path / "none"))

    def test_facts_say_what_is_on_it_and_who_has_it(self, device: str, tmp_path: Path) -> None:
        subprocess.run(["mkfs.ext4", "-q", "-F", "-L", "mine", device], check=True)
        found = next(disk for disk in disks.look() if disk.path == device)
        assert found.signatures == ("ext4 'mine'",) and found.users == () and found.size == MIB << 20
        mount = tmp_path / "mnt"
        mount.mkdir()
        subprocess.run(["mount", device, str(mount)], check=True)
        try:
            found = next(disk for disk in disks.look() if disk.path == device)
        finally:
            subprocess.run(["umount", str(mount)], check=True)
        assert found.users == (f"it is mounted on {mount}",)

    def test_a_guest_that_names_it_has_it(self, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "nodes" / "pve2" / "qemu-server"
        folder.mkdir(parents=True)
        (folder / "100.conf").write_text(f"name: db\nscsi1: {device},size=8M\n")
        monkeypatch.setattr(guests, "NODES", str(tmp_path / "nodes"))
        had = users.look(users.of_guests(""))
        found = next(disk for disk in disks.look(had) if disk.path == device)
        assert found.users == ("VM 100 names it in its configuration",)


class TestPrograms:
    def test_one_that_fails_is_a_failure_with_its_words(self) -> None:
        failure = carry_out(Step("a.x", "a", Kind.FILE, "t", "w", (("ls", "/nowhere"),)), False).failure
        assert failure is not None and "/nowhere" in failure

    def test_one_that_outlives_us_is_waited_for(self, lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hands, "_LOCK_SECONDS", 0.3)
        lock.parent.mkdir()
        with lock.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            failure = carry_out(Step("a.x", "a", Kind.FILE, "t", "w", (("true",),)), False).failure
        assert failure is not None and "still runs here" in failure
        assert carry_out(Step("a.x", "a", Kind.FILE, "t", "w", (("true",),)), False).failure is None

    def test_every_kind_has_a_time_that_covers_its_programs(self) -> None:
        assert all(hands.seconds(kind) > hands.SECONDS.get(kind, hands.MINUTE) for kind in Kind)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (json.dumps({"verdict": {"kind": "healthy", "cause": "All is well.", "remedy": ""}}), "healthy"),
        (
            json.dumps({"verdict": {"kind": "split-brain", "cause": "They are apart.", "remedy": "Look."}}),
            "split-brain",
        ),
        ("", "not known"),
        ("{}", "not known"),
    ],
)
def test_the_verdict_is_what_mirror_status_says(said: str, kind: str) -> None:
    found, text = states.verdict(said)
    assert found == kind and text.startswith(kind)
