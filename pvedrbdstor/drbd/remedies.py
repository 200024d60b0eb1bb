"""How people are told to change DRBD's configuration on a mirror in use. No I/O here."""

from __future__ import annotations


def taken_up(resource: str) -> str:
    """A clause. adjust(8) also disconnects or detaches where addresses or disks differ, which takes the mirror from under the guests."""
    return f"see with 'drbdadm --dry-run adjust {resource}' that nothing else would change, then run 'drbdadm adjust {resource}' on both"
