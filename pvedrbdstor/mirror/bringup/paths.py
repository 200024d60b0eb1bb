"""Where bringing storages up keeps its files: a cache that a reboot forgets, nothing of it removed; and what bars it."""

from __future__ import annotations

FOLDER = "/run/pvedrbdstor/bringup"
RESOLUTIONS = "/var/lib/pvedrbdstor/split-brain"


def lock(storage: str) -> str:
    """Held by flock() while a job works on the storage."""
    return f"{FOLDER}/{storage}.lock"


def state(storage: str) -> str:
    """JSON: what the last job did, or is doing."""
    return f"{FOLDER}/{storage}.json"


def request(storage: str) -> str:
    """JSON: what the next job is to do; the job takes it away."""
    return f"{FOLDER}/{storage}.request"


def hold(storage: str) -> str:
    """There while an administrator wants the storage down."""
    return f"{FOLDER}/{storage}.down"


def log(storage: str) -> str:
    """What a detached job prints, of the last one only."""
    return f"{FOLDER}/{storage}.log"


def resolution(storage: str) -> str:
    """There, also after a reboot, while a split brain's resolution discards this node's copy (fencing/split/journal.py)."""
    return f"{RESOLUTIONS}/{storage}.json"
