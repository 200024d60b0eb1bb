"""Test doubles for the packages of Proxmox VE that ours needs or talks to: their names, and as little as the tests need."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

STANDINS = Path(__file__).resolve().parents[1] / "perl" / "standins"


@dataclass(frozen=True)
class Double:
    """A package by name, with a folder to ship as /usr/share/perl5, other files, and files of the control archive."""

    name: str
    perl: Path | None = None
    control: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    version: str = "0~double"

    def build(self, folder: Path) -> Path:
        """Build the .deb below ``folder``; its path."""
        tree = folder / f"{self.name}_{self.version}"
        (tree / "DEBIAN").mkdir(parents=True)
        if self.perl is not None:
            shutil.copytree(self.perl, tree / "usr" / "share" / "perl5")
        for name, text in self.files.items():
            file = tree / name.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text.encode())
            self._sums(tree, file)
        (tree / "DEBIAN" / "control").write_text(
            f"Package: {self.name}\nVersion: {self.version}\nArchitecture: all\nMaintainer: tests <tests@example.invalid>\n"
            f"Description: test double, stands for {self.name}\n"
        )
        for name, text in self.control.items():
            script = tree / "DEBIAN" / name
            script.write_text(text)
            script.chmod(0o755)
        deb = folder / f"{self.name}_{self.version}.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(deb)],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=60,
        )
        return deb

    @staticmethod
    def _sums(tree: Path, file: Path) -> None:
        """Note a file's checksum, for `dpkg --verify`."""
        digest = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
        with (tree / "DEBIAN" / "md5sums").open("a") as sums:
            sums.write(f"{digest}  {file.relative_to(tree)}\n")


TEMPLATE = "/usr/share/pve-manager/index.html.tpl"
ANCHOR = '    <script type="text/javascript" src="/pve2/js/pvemanagerlib.js?ver=[% version %]"></script>\n'
# the web interface's page, as far as gui-hook looks at it
PAGE = f"<!DOCTYPE html>\n<html>\n  <head>\n{ANCHOR}  </head>\n  <body>a double</body>\n</html>\n"
TRIGGERED = "/var/lib/pve-manager-double-was-triggered"


def pve_manager(page: str = PAGE, version: str = "0~double") -> Double:
    """The web interface; as the real one, it is told when storage plugins change, so that the daemons reload."""
    return Double(
        "pve-manager",
        control={
            "triggers": "interest-noawait pve-api-updates\n",
            "postinst": f'#!/bin/sh\nset -e\n[ "$1" != triggered ] || touch {TRIGGERED}\n',
        },
        files={TEMPLATE: page, "/usr/share/pve-manager/js/pvemanagerlib.js": "// a double\n"},
        version=version,
    )


DOUBLES = [
    Double("libpve-storage-perl", perl=STANDINS),
    Double("pve-qemu-kvm"),
    pve_manager(),
]
