"""Where bringing storages up keeps its files: all of it a cache that a reboot forgets, nothing of it removed."""

from __future__ import annotations

FOLDER = "/run/pvedrbdstor/bringup"


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
