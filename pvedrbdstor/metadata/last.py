"""What the doctor asks: the newest set of this node's disk, and whether its files are as they were written."""

from __future__ import annotations

from pvedrbdstor.metadata import sets

CHECKED_MAX = 32 << 20
"""Bytes of a set whose sums are checked for it; of a larger one `pvedrbdstor metadata list` does."""


def newest(storage: str, node: str, below: str = sets.FOLDER) -> dict[str, object] | None:
    """None where there is none. Raises OSError."""
    paths = sets.paths(f"{below}/{storage}", node)
    if not paths:
        return None
    try:
        found = sets.read(paths[0])
    except sets.Broken as error:
        return {"path": paths[0], "at": None, "damaged": [str(error)]}
    return {
        "path": found.path,
        "at": found.at,
        "damaged": sets.damaged(found) if found.bytes <= CHECKED_MAX else [],
    }
