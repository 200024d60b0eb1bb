"""Command lines of DRBD's tools, as argument lists for pvedrbdstor.command.run. Nothing in this file does I/O."""

from __future__ import annotations


def events2_now(resource: str | None = None, *, statistics: bool = False) -> list[str]:
    """The present state of one resource, or of all, in the format of drbd.events2 (DRBD 8.4 and 9).

    A resource that does not exist gives an empty state and exit status 0 on 8.4.
    """
    command = ["drbdsetup", "events2", "--now"]
    if statistics:
        command.append("--statistics")
    if resource is not None:
        command.append(resource)
    return command
