"""Disks of guests with partitions that hold something, made by the tools that guests make them with."""

from __future__ import annotations

import subprocess
from pathlib import Path

MIB = 1 << 20
SWAP, ROOT, BARE, GAP = 2 * MIB, 12 * MIB, 80 * MIB, 95 * MIB
"""Places inside of the partitions of partitioned(), and outside of any."""


def partitioned(path: Path) -> None:
    """100 MiB: 1 swap, 2 ext4 "root", 3 nothing; the file stays sparse."""
    with path.open("wb") as file:
        file.truncate(100 * MIB)
    script = "label: gpt\nstart=1MiB, size=10MiB, type=S\nsize=60MiB, name=linux\nsize=10MiB\n"
    subprocess.run(["sfdisk", "-q", path], input=script, check=True, capture_output=True, text=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-L", "root", "-E", f"offset={11 * MIB}", path, "60M"], check=True)
    swap = path.with_name("swap")
    with swap.open("wb") as file:
        file.truncate(10 * MIB)
    subprocess.run(["mkswap", "-q", swap], check=True, capture_output=True)
    with path.open("r+b") as file:
        file.seek(MIB)
        file.write(swap.read_bytes()[:4096])
    swap.unlink()


def write(path: Path, at: int, data: bytes = b"x" * 4096) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
