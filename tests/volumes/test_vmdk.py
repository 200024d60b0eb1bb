"""The virtual size of VMDK images: as qemu-img makes them, and as a liar does."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.errors import BadImage
from pvedrbdstor.volumes import vmdk


def sector(version: int = 1, capacity: int = 2048, grain: int = 128, entries: int = 512) -> bytes:
    return struct.pack("<4sIIQQQQI", vmdk.MAGIC, version, 3, capacity, grain, 1, 20, entries).ljust(512, b"\0")


@pytest.mark.parametrize("size", ["1M", "64M", "40G"])
@pytest.mark.parametrize("subformat", ["monolithicSparse", "streamOptimized"])
def test_size_is_what_qemu_img_says(tmp_path: Path, size: str, subformat: str) -> None:
    path = tmp_path / "vm-100-disk-0.vmdk"
    subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", "-o", f"subformat={subformat}", path, size], check=True)
    told = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", path]))
    with path.open("rb") as file:
        assert vmdk.read_size(file.fileno(), path.name) == told["virtual-size"]


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"", "magic number"),
        (b"# Disk DescriptorFile\n".ljust(512), "magic number"),
        (sector()[:511], "cut short"),
        (sector(version=4), "version 4"),
        (sector(entries=0), "claim 0 entries"),
        (sector(entries=513), "claim 513 entries"),
        (sector(grain=0), "claim 0 sectors"),
        (sector(grain=1 << 40), "sectors"),
        (sector(capacity=1 << 63), "too large"),
    ],
)
def test_a_header_that_lies_is_refused(data: bytes, detail: str) -> None:
    with pytest.raises(BadImage, match=detail):
        vmdk.parse_size(data)


@given(st.binary(max_size=508))
def test_arbitrary_bytes_give_a_size_or_bad_image(tail: bytes) -> None:
    try:
        assert vmdk.parse_size((vmdk.MAGIC + tail).ljust(512, b"\0")) >= 0
    except BadImage as error:
        assert "vmdk" in error.message
