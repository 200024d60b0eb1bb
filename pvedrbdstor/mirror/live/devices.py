"""Word of block devices that come, change and go, as the kernel or udev tells it."""

from __future__ import annotations

import logging
import os

import pyudev

log = logging.getLogger(__name__)


class Devices:
    """DRBD's devices and those below it. Neither tells of connections, disks or resyncs: that is the stream's."""

    def __init__(self) -> None:
        self._monitor: pyudev.Monitor | None = None
        try:
            source = "udev" if os.path.exists("/run/udev/control") else "kernel"
            self._monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source=source)
            self._monitor.filter_by("block")
            self._monitor.start()
        except (OSError, ImportError) as error:
            log.warning("Block devices are not watched: %s", error)
            self._monitor = None

    def fileno(self) -> int | None:
        return None if self._monitor is None else int(self._monitor.fileno())

    def changed(self) -> bool:
        """Take in what has come; whether any of it is about a DRBD device."""
        found = False
        while self._monitor is not None:
            try:
                device = self._monitor.poll(0)
            except OSError as error:  # the queue has overflown: something happened
                log.warning("Word of block devices was lost: %s", error)
                return True
            if device is None:
                break
            found = found or str(device.sys_name).startswith("drbd")
        return found
