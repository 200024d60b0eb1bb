"""An administrator's word that the other node is switched off: the one thing that DRBD, without fencing, cannot know."""

from __future__ import annotations

import os
import time

from pvedrbdstor.mirror.live import view


def say(storage_id: str, folder: str | None = None) -> None:
    """Note it; it holds until the peer is connected again, or this node is booted. Raises OSError."""
    os.makedirs(folder or view.FOLDER, exist_ok=True)
    with open(_path(storage_id, folder), "w", encoding="utf-8"):
        pass


def seconds_since(storage_id: str, folder: str | None = None) -> float | None:
    """How long ago it was said; None when it was not."""
    try:
        return max(0.0, time.time() - os.stat(_path(storage_id, folder)).st_mtime)
    except FileNotFoundError:
        return None


def take_back(storage_id: str, folder: str | None = None) -> None:
    try:
        os.unlink(_path(storage_id, folder))
    except FileNotFoundError:
        pass


def _path(storage_id: str, folder: str | None) -> str:
    return f"{folder or view.FOLDER}/{storage_id}.peer-off"
