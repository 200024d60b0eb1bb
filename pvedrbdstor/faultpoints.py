"""Named places between the steps that change the disk, where a test can end the process.

In production a fault point does nothing. A test sets :data:`hook` in its own process; nothing outside it can.
"""

from __future__ import annotations

from collections.abc import Callable

hook: Callable[[str], None] | None = None


def reach(name: str) -> None:
    """Tell the hook, if there is one, that the step before ``name`` is done (or about to begin)."""
    if hook is not None:
        hook(name)
