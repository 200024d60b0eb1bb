"""Numbers and names of DRBD's block devices. Nothing in this file does I/O."""

from __future__ import annotations

MAJOR = 147  # registered for DRBD in the kernel's Documentation/admin-guide/devices.txt


def by_res_links(resource: str, volume: int) -> tuple[str, ...]:
    """Where DRBD's udev rule may have put the link to a volume's device.

    A resource whose configuration does not write `volume 0 { }` gets a link without the number (drbdadm sh-udev).
    """
    numbered = f"/dev/drbd/by-res/{resource}/{volume}"
    return (numbered,) if volume else (numbered, f"/dev/drbd/by-res/{resource}")


def node(minor: int) -> str:
    """The device node the kernel makes (devtmpfs), with or without udev."""
    return f"/dev/drbd{minor}"
