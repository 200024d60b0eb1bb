"""Opening the mirror on real mounts of this machine, all of them wrong ones; the right one needs a cluster (tests/lab)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pvedrbdstor import command
from pvedrbdstor.command import Result
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import devices
from pvedrbdstor.errors import CommandTimeout, NotMounted, ReadOnlyStorage, WrongMount
from pvedrbdstor.mirror import mount, status
from tests.loopback import Loopback
from tests.mirror.test_judge import FACTS


def config(path: Path | str, resource: str = "r0", volume: int = 0) -> StorageConfig:
    return StorageConfig(id="ha", path=str(path), resource=resource, volume=volume)


@contextmanager
def mounted(point: Path, *arguments: str) -> Iterator[Path]:
    """`mount ARGUMENTS POINT` for as long as the block runs."""
    point.mkdir(exist_ok=True)
    subprocess.run(["mount", *arguments, str(point)], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True)


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "ha", "-t", "tmpfs", "-o", "size=1m", "none") as point:
        yield point


def facts_of(path: Path) -> mount.MountFacts:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return mount.gather(fd, config(path))
    finally:
        os.close(fd)


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_a_plain_folder_is_not_mounted(tmp_path: Path) -> None:
    with pytest.raises(NotMounted):
        mount.open_mirror(config(tmp_path))


def test_a_missing_path_is_not_mounted(tmp_path: Path) -> None:
    with pytest.raises(NotMounted):
        mount.open_mirror(config(tmp_path / "none"))


def test_a_file_is_the_wrong_mount(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WrongMount, match="holds a file where a mount point"):
        mount.open_mirror(config(tmp_path / "file"))


def test_another_file_system_is_the_wrong_mount(tmpfs: Path) -> None:
    with pytest.raises(WrongMount, match="where OCFS2 is expected"):
        mount.open_mirror(config(tmpfs))


def test_xfs_is_the_wrong_mount_and_named(reflink_fs: Loopback) -> None:
    with pytest.raises(WrongMount, match="a file system of type XFS"):
        mount.open_mirror(config(reflink_fs.path))


def test_a_folder_below_a_mount_is_not_mounted(tmpfs: Path) -> None:
    (tmpfs / "sub").mkdir()
    with pytest.raises(NotMounted):
        mount.open_mirror(config(tmpfs / "sub"))


def test_a_refusal_leaves_no_descriptor_open(tmpfs: Path) -> None:
    before = open_fds()
    for _ in range(3):
        with pytest.raises(WrongMount):
            mount.open_mirror(config(tmpfs))
    assert open_fds() == before


def test_a_bound_folder_shows_its_root(tmpfs: Path, tmp_path: Path) -> None:
    (tmpfs / "a b").mkdir()
    with mounted(tmp_path / "bound here", "--bind", str(tmpfs / "a b")) as point:
        facts = facts_of(point)
    assert facts.mount is not None
    assert (facts.mount.root, facts.mount.mount_point, facts.opened_path) == ("/a b", str(point), str(point))


def test_facts_are_those_of_the_opened_mount_not_of_one_put_over_it(tmpfs: Path) -> None:
    fd = os.open(tmpfs, os.O_RDONLY | os.O_DIRECTORY)
    try:
        before = mount.gather(fd, config(tmpfs))
        with mounted(tmpfs, "-t", "tmpfs", "-o", "ro,size=2m", "none"):
            assert mount.gather(fd, config(tmpfs)) == before
            assert facts_of(tmpfs).mount != before.mount
            assert facts_of(tmpfs).read_only
        assert not before.read_only
    finally:
        os.close(fd)


def test_a_mount_taken_away_after_opening_is_gone(tmp_path: Path) -> None:
    with mounted(tmp_path / "ha", "-t", "tmpfs", "none") as point:
        fd = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert mount.gather(fd, config(point)).mount is None
    finally:
        os.close(fd)


@pytest.fixture
def verified(tmpfs: Path, monkeypatch: pytest.MonkeyPatch) -> StorageConfig:
    """A storage on tmpfs that passes for the mirror: its facts are replaced by those of a real one."""
    monkeypatch.setattr(mount, "gather", lambda fd, config: FACTS)
    return config(tmpfs)


def test_the_store_works_through_the_verified_descriptor_and_closes_it(verified: StorageConfig) -> None:
    before = open_fds()
    with mount.open_store(verified, write=True) as store:
        os.mkdir("through-the-descriptor", dir_fd=store.root_fd)
        assert "through-the-descriptor" in os.listdir(verified.path)
    assert open_fds() == before


def test_a_read_only_mirror_is_refused_to_writers_only(
    verified: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mount, "gather", lambda fd, config: replace(FACTS, read_only=True))
    before = open_fds()
    with mount.open_store(verified) as store:
        assert store.config == verified
    with pytest.raises(ReadOnlyStorage), mount.open_store(verified, write=True):
        pytest.fail("a writer got in")
    assert open_fds() == before


def test_sizes_are_those_df_prints(verified: StorageConfig) -> None:
    (Path(verified.path) / "file").write_bytes(b"x" * 300_000)
    fields = ["--output=size,used,avail"]
    told = subprocess.check_output(["df", "-B1", *fields, verified.path], text=True).splitlines()[1].split()
    found = status.status(verified)
    assert [found["total"], found["used"], found["avail"]] == [int(word) for word in told]
    assert found["active"] is True


def test_status_of_an_unmounted_storage_is_inactive(tmp_path: Path) -> None:
    assert status.status(config(tmp_path)) == {"total": 0, "avail": 0, "used": 0, "active": False}


def test_status_of_a_wrong_mount_says_so(tmpfs: Path) -> None:
    with pytest.raises(WrongMount):
        status.status(config(tmpfs))


def test_the_verified_uuid_is_the_identity(verified: StorageConfig) -> None:
    uuid = "D3B97E2B2D96431C81C428ABE6A7ECE6"
    assert status.identity(replace(verified, uuid=uuid)) == uuid


class Drbd:
    """Stands for udev's links and for drbdsetup; counts how often the latter is asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.asked = 0
        self.answer = "exists device name:r0 volume:0 minor:5 disk:UpToDate\nexists -\n"
        monkeypatch.setattr(devices, "by_res_links", lambda resource, volume: (str(folder / f"{resource}-{volume}"),))
        monkeypatch.setattr(command, "run", self.run)
        monkeypatch.setattr(mount, "_known_owners", {})

    def link(self, minor: int, major: int = devices.MAJOR) -> None:
        os.mknod(self.folder / "r0-0", 0o600 | 0o060000, os.makedev(major, minor))

    def run(self, argv: list[str], *, timeout: float) -> Result:
        assert argv == ["drbdsetup", "events2", "--now", "r0"]
        assert timeout == 2
        self.asked += 1
        return Result(0, self.answer, "")

    def owner(self, mounted_minor: int, mnt_id: int = 33, volume: int = 0) -> int | None:
        return mount._owner((mnt_id, os.makedev(devices.MAJOR, mounted_minor), (1, 2), "r0", volume), mounted_minor)


@pytest.fixture
def drbd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drbd:
    return Drbd(tmp_path, monkeypatch)


def test_a_link_that_agrees_with_the_mount_is_believed_without_asking_drbd(drbd: Drbd) -> None:
    drbd.link(5)
    assert drbd.owner(5) == 5
    assert drbd.asked == 0


def test_drbd_is_asked_where_there_is_no_link_and_once_for_a_mount(drbd: Drbd) -> None:
    assert [drbd.owner(5), drbd.owner(5)] == [5, 5]
    assert drbd.asked == 1
    assert drbd.owner(5, mnt_id=34) == 5
    assert drbd.asked == 2


def test_a_stale_link_is_overruled_by_drbd(drbd: Drbd) -> None:
    drbd.link(9)
    assert drbd.owner(5) == 5
    assert drbd.owner(9, mnt_id=40) == 9  # not asked: the link agrees


def test_a_link_to_a_device_that_is_not_drbds_is_not_believed(drbd: Drbd) -> None:
    drbd.link(5, major=7)
    drbd.answer = "exists -\n"
    assert drbd.owner(5) is None


def test_a_wrong_answer_is_not_remembered(drbd: Drbd) -> None:
    assert drbd.owner(6) == 5
    drbd.answer = "exists device name:r0 volume:0 minor:6\nexists -\n"
    assert drbd.owner(6) == 6
    assert drbd.asked == 2


def test_a_volume_that_drbd_does_not_have_has_no_minor(drbd: Drbd) -> None:
    assert drbd.owner(5, volume=1) is None


def test_drbd_that_does_not_answer_is_an_error_not_a_yes(drbd: Drbd, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(argv: list[str], *, timeout: float) -> Result:
        raise CommandTimeout(command=" ".join(argv), seconds=timeout)

    monkeypatch.setattr(command, "run", hang)
    with pytest.raises(CommandTimeout):
        drbd.owner(5)
