"""A folder that gui-hook takes for a machine, and the template in it."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

HOOK = Path(__file__).resolve().parents[2] / "gui" / "gui-hook"
ANCHOR = b'    <script type="text/javascript" src="/pve2/js/pvemanagerlib.js?ver=[% version %]"></script>\n'
BEFORE = b"<!DOCTYPE html>\n<html>\n  <head>\n    <title>[% nodename %]</title>\n"
AFTER = b"    [%- IF debug %]\n    <script>Ext.onReady(function() {});</script>\n  </head>\n</html>\n"
TEMPLATE = BEFORE + ANCHOR + AFTER
SCRIPT = b"/pve2/js/drbdocfs2.js"
DIALOG = b"// the dialog\n"
VERSION = hashlib.sha256(DIALOG).hexdigest()[:12].encode()


@dataclass(frozen=True)
class Node:
    """A folder that gui-hook takes for a machine: with our script, and with the template the test puts there."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "usr" / "share" / "pve-manager"

    @property
    def template(self) -> Path:
        return self.folder / "index.html.tpl"

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run gui-hook; standard output and errors apart."""
        return subprocess.run(
            [str(HOOK), *arguments],
            env={**os.environ, "DPKG_ROOT": str(self.root), **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def does(self, command: str) -> bytes:
        """Run a command that must succeed in silence; the template afterwards."""
        done = self.run(command)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        return self.template.read_bytes()

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


def make_node(root: Path, template: bytes | None = TEMPLATE) -> Node:
    node = Node(root)
    (node.folder / "js").mkdir(parents=True)
    (node.folder / "js" / "drbdocfs2.js").write_bytes(DIALOG)
    if template is not None:
        node.template.write_bytes(template)
    return node
