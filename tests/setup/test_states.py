"""What a step looks at on its node right before it: volume groups, and DRBD's device below a file system. LVM and DRBD are what they say."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pvedrbdstor.setup import disks, exact, paths, states
from pvedrbdstor.setup.hands import Outcome, carry_out
from pvedrbdstor.setup.steps import Kind, Step
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


class TestVolumeGroups:
    """LVM itself is asked in the lab; here its answers are given."""

    @pytest.fixture
    def group(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        """program -> its answer."""
        said = {"pvs": "", "lvs": ""}
        monkeypatch.setattr(states, "_lvm", lambda program, column, name: said[program])
        monkeypatch.setattr(disks, "signatures", lambda path: ("LVM2_member",))
        return said

    def step(self, kind: Kind, device: str, marker: Path) -> Step:
        about = {"device": device, "group": "mirror", "volume": "r0"}
        if kind is not Kind.VOLUME_GROUP:
            about["disk"] = device
        return Step("a.x", "a", kind, "t", "w", (("touch", str(marker)),), about=about)

    @pytest.mark.parametrize("there", ["mirror", "theirs"])
    def test_none_is_made_on_a_physical_volume_that_is_in_one_by_now(
        self, device: str, group: dict[str, str], tmp_path: Path, there: str
    ) -> None:
        group["pvs"] = there
        outcome = carry_out(self.step(Kind.VOLUME_GROUP, device, tmp_path / "ran"), False)
        assert outcome.failure is not None and f"in the volume group {there} by now" in outcome.failure
        assert outcome.untouched and not (tmp_path / "ran").exists()

    def test_one_that_this_step_had_made_is_its_own(self, device: str, group: dict[str, str], tmp_path: Path) -> None:
        group["pvs"] = "mirror"
        assert carry_out(self.step(Kind.VOLUME_GROUP, device, tmp_path / "ran"), True) == Outcome(already=True)

    def test_none_is_made_where_there_is_no_physical_volume(
        self, device: str, group: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(disks, "signatures", lambda path: ("ext4",))
        failure = carry_out(self.step(Kind.VOLUME_GROUP, device, tmp_path / "ran"), True).failure
        assert failure is not None and "is not the physical volume" in failure and not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("answers", [{"pvs": "theirs", "lvs": ""}, {"pvs": "mirror", "lvs": "r0"}])
    def test_a_volume_is_made_in_the_group_on_the_plan_s_disk_and_only_where_there_is_none(
        self, device: str, group: dict[str, str], tmp_path: Path, answers: dict[str, str]
    ) -> None:
        group.update(answers)
        outcome = carry_out(self.step(Kind.LOGICAL_VOLUME, device, tmp_path / "ran"), False)
        assert outcome.failure is not None and outcome.untouched and not (tmp_path / "ran").exists()

    def test_no_metadata_go_to_a_volume_of_another_group(
        self, device: str, group: dict[str, str], tmp_path: Path
    ) -> None:
        group["pvs"] = "theirs"
        failure = carry_out(self.step(Kind.METADATA, device, tmp_path / "ran"), True).failure
        assert failure is not None and "not in mirror" in failure and not (tmp_path / "ran").exists()


class TestFileSystem:
    """DRBD is what its status says; the device below is real."""

    UUID = "0123456789ABCDEF0123456789ABCDEF"

    @pytest.fixture(autouse=True)
    def drbd(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.says(monkeypatch)
        monkeypatch.setattr(states, "STORAGE_CFG", str(tmp_path / "storage.cfg"))

    def says(self, monkeypatch: pytest.MonkeyPatch, state: str = "Connected", role: str = "Secondary") -> None:
        found = SimpleNamespace(
            devices=[SimpleNamespace(resource="r0", disk="UpToDate")],
            connections=[SimpleNamespace(resource="r0", state=state, role=role)],
            minor_of=lambda name, volume: 0,
        )
        monkeypatch.setattr(states, "drbd_state", lambda name: found)

    def step(self, device: str, marker: Path) -> Step:
        about = {"resource": "r0", "device": device, "minor": "0", "uuid": self.UUID}
        return Step("a.fs", "a", Kind.FILE_SYSTEM, "t", "w", (("touch", str(marker)),), about=about)

    @pytest.mark.parametrize("again", [False, True])
    @pytest.mark.parametrize(
        ("state", "role"), [("Connected", "Primary"), ("StandAlone", "Unknown"), ("Connecting", "Secondary")]
    )
    def test_none_is_made_while_the_other_node_may_use_the_device(
        self, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, role: str, again: bool
    ) -> None:
        self.says(monkeypatch, state, role)
        outcome = carry_out(self.step(device, tmp_path / "ran"), again)
        assert outcome.failure is not None and "on the other node" in outcome.failure
        assert outcome.untouched and not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("again", [False, True])
    @pytest.mark.parametrize("line", [f"drbdocfs2-uuid {UUID}", "drbdocfs2-resource r0"])
    def test_none_is_made_over_one_that_storage_cfg_names(
        self, device: str, tmp_path: Path, line: str, again: bool
    ) -> None:
        (tmp_path / "storage.cfg").write_text(f"drbdocfs2: other\n\tpath /mnt/pve/other\n\t{line}\n")
        outcome = carry_out(self.step(device, tmp_path / "ran"), again)
        assert outcome.failure is not None and "storage 'other'" in outcome.failure
        assert outcome.untouched and not (tmp_path / "ran").exists()

    def test_only_one_of_the_plan_s_uuid_is_made_again(
        self, loop: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = {"": {"ends": "", "signatures": [["0x2000", "ocfs2", "", ""]]}}
        monkeypatch.setattr(disks, "signatures", lambda path: ("ocfs2",))
        monkeypatch.setattr(states, "missing", lambda step: None)
        for uuid, made in (("", False), ("f" * 32, False), ("01234567-89ab-cdef-0123-456789abcdef", True)):
            record[""]["signatures"][0][2] = uuid
            monkeypatch.setattr(exact, "record", lambda path: json.dumps(record))
            failure = carry_out(self.step(loop.device, tmp_path / "ran"), True).failure
            assert (failure is None) is made and (tmp_path / "ran").exists() is made
