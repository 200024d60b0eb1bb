"""Write a file whole or not at all, and only over what the plan has seen there."""

from __future__ import annotations

import os

from pvedrbdstor.files import sync_folder
from pvedrbdstor.setup.steps import File, NotNow, digest

_SHARED = "/etc/pve/"  # pmxcfs has modes of its own


def write(file: File) -> None:
    """Raises NotNow where something else is there than when the plan was made, OSError."""
    present = content(file.path)
    if present == file.content:
        return
    if (None if present is None else digest(present)) != file.before:
        raise NotNow(
            f"{file.path} is not what it was when the plan was made, and was left alone. Look at it; if it is of no use, put it back "
            "or move it away."
        )
    os.makedirs(os.path.dirname(file.path), exist_ok=True)
    new = f"{file.path}.tmp.{os.getpid()}"
    with open(new, "w", encoding="utf-8", errors="surrogateescape", newline="") as out:
        out.write(file.content)
        out.flush()
        if not file.path.startswith(_SHARED):
            os.fchmod(out.fileno(), file.mode)
        os.fsync(out.fileno())
    os.rename(new, file.path)
    sync_folder(os.path.dirname(file.path))


def content(path: str) -> str | None:
    """None where there is none. Raises OSError."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return None
