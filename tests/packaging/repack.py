"""A built package changed by hand: another version, other files. Faster than building it, and a version that never was."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path


def repack(package: Path, folder: Path, version: str, edit: Callable[[Path], None]) -> Path:
    """Unpack a .deb below ``folder``, have ``edit`` change the tree (control files in DEBIAN/), pack it; the new .deb."""
    tree = folder / f"tree-{version}"
    subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(tree)], check=True, timeout=60)
    control = tree / "DEBIAN" / "control"
    control.write_text(re.sub(r"^Version: .*$", f"Version: {version}", control.read_text(), flags=re.MULTILINE))
    edit(tree)
    deb = folder / f"pvedrbdstor_{version}.deb"
    how = ["--root-owner-group", "-Znone", "--build", str(tree), str(deb)]
    subprocess.run(["dpkg-deb", *how], check=True, stdout=subprocess.DEVNULL, timeout=60)
    return deb


def without_the_dialog(tree: Path) -> None:
    """As it was before there was one: no script, no hook, no trigger, and nothing of it in the maintainer scripts."""
    (tree / "usr/lib/pvedrbdstor/gui-hook").unlink()
    (tree / "usr/share/pve-manager/js/drbdocfs2.js").unlink()
    control = tree / "DEBIAN"
    (control / "triggers").write_text("activate-noawait pve-api-updates\n")
    sums = (control / "md5sums").read_text().splitlines(keepends=True)
    (control / "md5sums").write_text("".join(line for line in sums if not re.search(r"gui-hook$|drbdocfs2\.js$", line)))
    gone = (r"^if \[ \"\$1\" = triggered \].*?^fi\n", r"^offer_the_dialog\n", r"^ *take_the_dialog_away\n")
    for name in ("postinst", "prerm"):
        script = control / name
        text = script.read_text()
        for pattern in gone:
            text = re.sub(pattern, "", text, flags=re.MULTILINE | re.DOTALL)
        script.write_text(text.replace("deconfigure)\n", "deconfigure)\n        :\n"))


def with_another_dialog(tree: Path) -> None:
    """As a later version that changed the dialog."""
    script = tree / "usr/share/pve-manager/js/drbdocfs2.js"
    script.write_text(script.read_text() + "// later\n")
