"""Listing and sizes: everything a `dir` storage leaves, nothing that is no volume, and no failure while things change."""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import Any

import pytest

from pvedrbdstor.call import Call
from pvedrbdstor.errors import BadImage, CallerGone, VolumeMissing
from pvedrbdstor.volumes import images, listing, templates
from pvedrbdstor.volumes.names import parse_volume
from tests.volumes.support import MIB, Area, qemu_img


def listed(area: Area, *arguments: Any) -> dict[str, dict[str, Any]]:
    return {entry["volid"]: entry for entry in area.do(listing.list_images, *arguments)}


def test_an_empty_storage_has_no_images(area: Area) -> None:
    assert area.volids() == []
    (area.folder / "images").mkdir()
    assert area.volids() == []
    assert listed(area, 100) == {}


def test_an_entry_has_what_proxmox_asks_for(area: Area) -> None:
    began = int(time.time())
    volume = area.alloc(size=4 * MIB)
    area.write(volume, bytes(65536))
    entry = listed(area)[f"ha:{volume}"]
    assert began <= entry.pop("ctime") <= time.time()
    assert entry == {
        "volid": "ha:100/vm-100-disk-0.raw",
        "format": "raw",
        "size": 4 * MIB,
        "vmid": 100,
        "used": 65536,
        "parent": None,
    }


def test_list_and_size_info_agree(area: Area) -> None:
    for fmt in ("raw", "qcow2"):
        area.alloc(fmt=fmt)
    for volid, entry in listed(area).items():
        info = area.do(listing.size_info, parse_volume(volid.partition(":")[2]))
        assert {key: entry[key] for key in info} == info


@pytest.mark.parametrize("length", [0, 1, 511, 512, 513])
def test_a_raw_image_counts_in_whole_sectors_as_qemu_does(area: Area, length: int) -> None:
    area.put("images/100/vm-100-disk-0.raw", bytes(length))
    assert listed(area)["ha:100/vm-100-disk-0.raw"]["size"] == -(-length // 512) * 512


def test_what_a_dir_storage_leaves_is_listed_as_it_lists_it(area: Area) -> None:
    folder = area.folder / "images/100"
    area.put("images/100/subvol-100-disk-1.subvol/etc/hostname")
    qemu_img("create", "-q", "-f", "vmdk", folder / "vm-100-disk-2.vmdk", "8M")
    qemu_img("create", "-q", "-f", "qcow2", folder / "vm-100-disk-3.qcow2", "16M")
    qemu_img("create", "-q", "-f", "raw", folder / "template-of-old.raw", "1M")
    seen = {volid: (entry["format"], entry["size"]) for volid, entry in listed(area).items()}
    assert seen == {
        "ha:100/subvol-100-disk-1.subvol": ("subvol", 0),
        "ha:100/template-of-old.raw": ("raw", MIB),
        "ha:100/vm-100-disk-2.vmdk": ("vmdk", 8 * MIB),
        "ha:100/vm-100-disk-3.qcow2": ("qcow2", 16 * MIB),
    }


def test_files_of_a_volume_chain_are_no_volumes(area: Area) -> None:
    folder = area.folder / "images/100"
    folder.mkdir(parents=True)
    qemu_img("create", "-q", "-f", "qcow2", folder / "snap-one-vm-100-disk-0.qcow2", "4M")
    backing = ("-F", "qcow2", "-b", "snap-one-vm-100-disk-0.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", *backing, folder / "vm-100-disk-0.qcow2")
    entry = listed(area)
    assert list(entry) == ["ha:100/vm-100-disk-0.qcow2"]
    assert entry["ha:100/vm-100-disk-0.qcow2"]["parent"] == "snap-one-vm-100-disk-0.qcow2"


def test_what_is_no_image_is_not_listed(area: Area) -> None:
    for name in (
        *("images/100/.hidden.raw", "images/100/notes.txt", "images/100/vm-100-disk-0.raw.bak", "images/100/a b.raw"),
        *("images/100/folder.raw/x", "images/100/file.subvol", "images/stray.raw", "images/abc/vm-1-disk-0.raw"),
        *("images/0100/vm-100-disk-9.raw", "images/100/.snapshots/vm-100-disk-0.raw/one.raw"),
        *(".drbdocfs2/work/new.100.abc", "dump/vzdump-qemu-100.raw"),
    ):
        area.put(name)
    folder = area.folder / "images/100"
    (folder / "link.raw").symlink_to("/etc/passwd")
    (folder / "dangling.qcow2").symlink_to("nowhere")
    os.mkfifo(folder / "fifo.raw")
    os.mknod(folder / "disk.raw", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    os.mkdir(os.fsencode(folder / "x") + b"\xff.raw")
    assert area.volids() == []
    for name in ("link.raw", "dangling.qcow2", "fifo.raw", "disk.raw", "folder.raw", "file.subvol"):
        with pytest.raises(VolumeMissing):
            area.do(listing.size_info, parse_volume(f"100/{name}"))


@pytest.mark.parametrize("kind", ["file", "link", "link to a folder of images"])
def test_a_guests_folder_that_is_none_hides_only_itself(area: Area, kind: str) -> None:
    area.alloc(100)
    strange = area.folder / "images/50"
    if kind == "file":
        strange.write_bytes(b"")
    else:
        strange.symlink_to("100" if "folder" in kind else "/nowhere")
    assert area.volids() == ["ha:100/vm-100-disk-0.raw"]


@pytest.mark.parametrize(
    "content",
    [b"", b"QFI\xfb", b"#!/bin/sh\n", b"QFI\xfb\0\0\0\3" + bytes(96), b"KDMV" + bytes(20)],
    ids=["empty", "cut short", "text", "zeros", "vmdk cut short"],
)
@pytest.mark.parametrize("fmt", ["qcow2", "vmdk"])
def test_a_file_that_is_not_what_its_name_says_is_listed_as_invalid(area: Area, fmt: str, content: bytes) -> None:
    area.put(f"images/100/vm-100-disk-0.{fmt}", content)
    area.alloc()
    entries = listed(area)
    assert len(entries) == 2
    assert entries[f"ha:100/vm-100-disk-0.{fmt}"]["format"] == "invalid"


def test_an_image_that_is_cut_short_is_invalid(area: Area) -> None:
    volume = area.alloc(fmt="qcow2")
    with area.path(volume).open("r+b") as file:
        file.truncate(70000)
    assert listed(area)[f"ha:{volume}"]["format"] == "invalid"


@pytest.mark.parametrize(
    ("vmid", "volids", "found"),
    [
        (None, None, {"100/vm-100-disk-0.raw", "100/vm-100-disk-1.raw", "200/vm-200-disk-0.raw"}),
        (100, None, {"100/vm-100-disk-0.raw", "100/vm-100-disk-1.raw"}),
        (300, None, set()),
        (None, ["ha:100/vm-100-disk-1.raw"], {"100/vm-100-disk-1.raw"}),
        (200, ["ha:100/vm-100-disk-1.raw"], {"100/vm-100-disk-1.raw"}),
        (None, [], set()),
        (
            100,
            ["other:100/vm-100-disk-0.raw", "ha:100/vm-100-disk-7.raw", "ha:../../etc/passwd", "ha:", "", ":"],
            set(),
        ),
        (None, ["ha:900/vm-900-disk-0.raw", "ha:200/vm-200-disk-0.raw"] * 2, {"200/vm-200-disk-0.raw"}),
    ],
)
def test_a_list_can_be_of_one_guest_or_of_named_volumes(
    area: Area, vmid: int | None, volids: list[str] | None, found: set[str]
) -> None:
    for guest in (100, 100, 200):
        area.alloc(guest)
    entries = area.do(listing.list_images, vmid, volids)
    assert sorted(entry["volid"] for entry in entries) == sorted(f"ha:{name}" for name in found)


def test_an_image_that_vanishes_meanwhile_is_left_out(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    for fmt in ("raw", "qcow2"):
        area.alloc(fmt=fmt)
    stays = area.alloc(200)
    listdir = os.listdir

    def vanishing(folder: int) -> list[str]:
        found = listdir(folder)
        for path in (area.folder / "images/100").glob("*"):
            path.unlink()
        return found

    monkeypatch.setattr(os, "listdir", vanishing)
    assert list(listed(area)) == [f"ha:{stays}"]


@pytest.mark.parametrize("before", ["it is opened", "it is read"])
def test_a_guest_that_vanishes_meanwhile_is_left_out(area: Area, monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    stays = area.alloc(200)
    (area.folder / "images/100").mkdir()
    listdir, reads = os.listdir, []

    def vanishing(folder: int) -> list[str]:
        found = listdir(folder) if before == "it is opened" else None
        reads.append(folder)
        if len(reads) == (1 if found is not None else 2):
            (area.folder / "images/100").rmdir()
        return listdir(folder) if found is None else found

    monkeypatch.setattr(os, "listdir", vanishing)
    assert list(listed(area)) == [f"ha:{stays}"]


def test_size_info_of_what_is_not_there_says_so(area: Area) -> None:
    area.alloc()
    for name in ("100/vm-100-disk-1.raw", "200/vm-200-disk-0.raw", "100/vm-100-disk-0.qcow2"):
        with pytest.raises(VolumeMissing, match=f"'{name}' does not exist on storage 'ha'"):
            area.do(listing.size_info, parse_volume(name))


def test_a_parent_is_told_as_the_image_names_it_and_is_no_base_elsewhere(area: Area) -> None:
    area.put("images/90/base-90-disk-0.raw", bytes(512))
    for number, backing in enumerate(["../90/base-90-disk-0.raw", str(area.folder / "images/90/base-90-disk-0.raw")]):
        path = area.put(f"images/100/vm-100-disk-{number}.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", backing, path)
        name = f"100/vm-100-disk-{number}.qcow2"
        assert (
            listed(area, 100)[f"ha:90/base-90-disk-0.raw/{name}" if not number else f"ha:{name}"]["parent"] == backing
        )


def test_the_caller_that_went_away_is_noticed_between_guests(area: Area) -> None:
    area.alloc()
    with pytest.raises(CallerGone):
        area.do(listing.list_images, gone=lambda: True)


def test_no_descriptor_is_left_open(area: Area) -> None:
    for fmt in ("raw", "qcow2"):
        area.alloc(fmt=fmt)
    area.put("images/100/vm-100-disk-9.qcow2", b"broken")
    before = sorted(os.listdir("/proc/self/fd"))
    with area.store() as store:
        assert len(listing.list_images(store, Call("list_images", "ha"))) == 3
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_listing_writes_nothing(area: Area) -> None:
    area.put("images/100/vm-100-disk-0.raw", bytes(512))
    assert len(area.volids()) == 1
    assert area.leftovers() == []
    assert not (area.folder / ".drbdocfs2").exists()


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_an_image_that_cannot_be_read_does_not_hide_the_others(
    area: Area, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    good, bad = area.alloc(), area.alloc(fmt="qcow2")
    real = os.pread

    def broken(fd: int, length: int, offset: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{fd}").endswith(".qcow2"):
            raise OSError(number, os.strerror(number))
        return real(fd, length, offset)

    monkeypatch.setattr(os, "pread", broken)
    found = {entry["volid"]: entry["format"] for entry in area.do(listing.list_images)}
    assert found == {f"ha:{good}": "raw", f"ha:{bad}": "invalid"}


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_guests_folder_that_cannot_be_read_hides_no_other_guest_and_is_logged(
    area: Area, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    area.alloc(100)
    good = area.alloc(200)
    real = os.listdir

    def broken(folder: int) -> list[str]:
        if os.readlink(f"/proc/self/fd/{folder}").endswith("/100"):
            raise OSError(number, os.strerror(number))
        return real(folder)

    monkeypatch.setattr(os, "listdir", broken)
    assert [entry["volid"] for entry in area.do(listing.list_images)] == [f"ha:{good}"]
    assert "the folder of guest 100 cannot be read" in caplog.text


def test_a_template_is_not_freed_while_it_is_not_known_what_an_image_is_backed_by(
    area: Area, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = area.do(templates.create_base, area.alloc())
    area.alloc(200, "qcow2")

    def broken(fd: int, length: int, offset: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(BadImage, match=r"200/vm-200-disk-0\.qcow2"):
        area.do(images.free_image, base)
