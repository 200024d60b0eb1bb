"""The qcow2 reader against images that qemu-img made, with qemu-img's own answer as the reference."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from pvedrbdstor.errors import BadImage
from pvedrbdstor.volumes import qcow2

MIB = 1 << 20


def qemu_img(*args: str | Path) -> str:
    return subprocess.run(
        ["qemu-img", *map(str, args)], check=True, capture_output=True, encoding="utf-8", errors="surrogateescape"
    ).stdout


def make(path: Path, options: str = "", size: str = "64M") -> Path:
    qemu_img("create", "-q", "-f", "qcow2", *(["-o", options] if options else []), path, size)
    return path


def header_of(path: Path) -> qcow2.Header:
    fd = os.open(path, os.O_RDONLY)
    try:
        return qcow2.read_header(fd, path.name)
    finally:
        os.close(fd)


def snapshots_of(path: Path) -> list[qcow2.Snapshot]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return qcow2.read_snapshots(fd, qcow2.read_header(fd, path.name), path.name)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "options",
    [
        "compat=0.10",
        "compat=1.1",
        "cluster_size=512",
        "cluster_size=4k",
        "cluster_size=2M",
        "extended_l2=on,cluster_size=128k",
        "lazy_refcounts=on",
        "refcount_bits=1",
        "compression_type=zstd",
        "preallocation=metadata",
        "preallocation=falloc",
    ],
)
@pytest.mark.parametrize("size", ["0", "1536", "64M", "1G"])
def test_header_says_what_qemu_img_says(tmp_path: Path, options: str, size: str) -> None:
    if "falloc" in options and size == "1G":
        size = "8M"
    path = make(tmp_path / "vm-100-disk-0.qcow2", options, size)
    told = json.loads(qemu_img("info", "--output=json", path))
    header = header_of(path)
    assert header.size == told["virtual-size"]
    assert header.cluster_size == told["cluster-size"]
    assert header.version == (2 if told["format-specific"]["data"]["compat"] == "0.10" else 3)
    assert (header.backing_file, header.data_file, header.encryption) == (None, None, "")
    assert not header.external_data
    assert not header.corrupt
    assert header.snapshot_count == 0


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
@pytest.mark.parametrize("name", ["../9000/base-9000-disk-0.qcow2", "b\udcff\u00e4.qcow2", "d/" * 480 + "long.qcow2"])
def test_backing_file_is_the_name_in_the_image(tmp_path: Path, compat: str, name: str) -> None:
    path = tmp_path / "vm-100-disk-0.qcow2"
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-o", f"compat={compat}", "-b", name, "-F", "qcow2", path, "64M")
    header = header_of(path)
    assert header.backing_file == name
    assert header.backing_format == "qcow2"


def test_external_data_file_is_reported(tmp_path: Path) -> None:
    path = make(tmp_path / "vm-100-disk-0.qcow2", f"data_file={tmp_path}/elsewhere.raw")
    header = header_of(path)
    assert header.external_data
    assert header.data_file == f"{tmp_path}/elsewhere.raw"


def test_encryption_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "vm-100-disk-0.qcow2"
    secret = "secret,id=s,data=hunter22"
    qemu_img(
        "create", "-q", "--object", secret, "-f", "qcow2", "-o", "encrypt.format=aes,encrypt.key-secret=s", path, "8M"
    )
    assert header_of(path).encryption == "aes"


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_internal_snapshots_are_those_qemu_img_lists(tmp_path: Path, compat: str) -> None:
    path = make(tmp_path / "vm-100-disk-0.qcow2", f"compat={compat}", "8M")
    for name in ("before-upgrade", "\u00e4\u00df", "third"):
        qemu_img("snapshot", "-c", name, path)
    qemu_img("snapshot", "-d", "before-upgrade", path)
    if compat == "1.1":
        qemu_img("resize", "-q", path, "16M")  # the snapshots keep their own size
    told = json.loads(qemu_img("info", "--output=json", path))["snapshots"]
    found = snapshots_of(path)
    assert [(s.id, s.name, s.timestamp, s.vm_state_size) for s in found] == [
        (s["id"], s["name"], s["date-sec"], s["vm-state-size"]) for s in told
    ]
    assert {s.virtual_size for s in found} == {8 * MIB}


def test_many_snapshots_are_read_across_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "vm-100-disk-0.qcow2", "", "1M")
    names = [f"{'n' * number}{number}" for number in range(40)]
    for name in names:
        qemu_img("snapshot", "-c", name, path)
    monkeypatch.setattr(qcow2, "_SNAPSHOT_WINDOW", 120)
    assert [snapshot.name for snapshot in snapshots_of(path)] == names


def test_a_usual_header_costs_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "vm-100-disk-0.qcow2")
    reads: list[int] = []
    pread = os.pread

    def counting(fd: int, length: int, offset: int) -> bytes:
        reads.append(length)
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", counting)
    header_of(path)
    assert reads == [4096]


def test_a_backing_name_beyond_the_first_read_is_found(tmp_path: Path) -> None:
    path = make(tmp_path / "vm-100-disk-0.qcow2")
    with path.open("r+b") as file:
        file.seek(8)
        file.write((5000).to_bytes(8, "big") + (7).to_bytes(4, "big"))
        file.seek(5000)
        file.write(b"base\0xx")
    assert header_of(path).backing_file == "base"


@pytest.mark.parametrize("length", [4, 71, 72, 104, 4096, 100_000, 3 * 65536 + 7])
def test_an_image_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    path = make(tmp_path / "vm-100-disk-0.qcow2", "", "1G")
    os.truncate(path, length)
    with pytest.raises(BadImage, match=r"'vm-100-disk-0\.qcow2' is not a usable qcow2 image: .*cut short"):
        header_of(path)


def test_a_snapshot_table_cut_short_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "vm-100-disk-0.qcow2", "", "1M")
    qemu_img("snapshot", "-c", "one", path)
    os.truncate(path, header_of(path).snapshots_offset + 41)
    with pytest.raises(BadImage, match="cut short inside its snapshot table"):
        snapshots_of(path)
