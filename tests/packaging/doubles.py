"""Test doubles for the packages of Proxmox VE that ours needs or talks to: their names, and as little as the tests need."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

STANDINS = Path(__file__).resolve().parents[1] / "perl" / "standins"


@dataclass(frozen=True)
class Double:
    """A package by name, with a folder to ship as /usr/share/perl5, and files of the control archive."""

    name: str
    perl: Path | None = None
    control: dict[str, str] = field(default_factory=dict)

    def build(self, folder: Path) -> Path:
        """Build the .deb below ``folder``; its path."""
        tree = folder / self.name
        (tree / "DEBIAN").mkdir(parents=True)
        if self.perl is not None:
            shutil.copytree(self.perl, tree / "usr" / "share" / "perl5")
        (tree / "DEBIAN" / "control").write_text(
            f"Package: {self.name}\nVersion: 0~double\nArchitecture: all\nMaintainer: tests <tests@example.invalid>\n"
            f"Description: test double, stands for {self.name}\n"
        )
        for name, text in self.control.items():
            script = tree / "DEBIAN" / name
            script.write_text(text)
            script.chmod(0o755)
        deb = folder / f"{self.name}.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(deb)],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=60,
        )
        return deb


TRIGGERED = "/var/lib/pve-manager-double-was-triggered"

DOUBLES = [
    Double("libpve-storage-perl", perl=STANDINS),
    Double("pve-qemu-kvm"),
    # as pve-manager does: told when storage plugins change, so that the daemons reload
    Double(
        "pve-manager",
        control={
            "triggers": "interest-noawait pve-api-updates\n",
            "postinst": f'#!/bin/sh\nset -e\n[ "$1" != triggered ] || touch {TRIGGERED}\n',
        },
    ),
]
