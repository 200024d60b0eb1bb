"""The start scripts of drbd-utils and ocfs2-tools: masked while a storage of ours is on this node, given back afterwards.

They bring everything down at shutdown in no order relative to the guests: the stop of /etc/init.d/ocfs2 (ocfs2-tools,
enabled at its installation) runs `umount -a -t ocfs2`, then `fuser -km` on what is still in use, which kills QEMU; that of
drbd.service (drbd-utils) runs `drbdadm down all`. Masking is what `systemctl mask` does, a link to /dev/null in
/etc/systemd/system, and needs no running systemd. What was masked by us is recorded, so that only that is given back.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum

from pvedrbdstor import command, files
from pvedrbdstor.errors import Error, SystemCallFailed
from pvedrbdstor.pve.storage_cfg import storage_ids_on

UNITS = ("drbd.service", "o2cb.service", "ocfs2.service")
FOLLOW_UNIT = "pvedrbdstor-vendor-units.service"
_UNIT_FOLDER = "etc/systemd/system"
_RECORD = "var/lib/pvedrbdstor/masked-units"
_STORAGE_CFG = "etc/pve/storage.cfg"
_SYSTEMD_RUNS = "run/systemd/system"  # sd_booted(3)
_SYSTEMCTL_SECONDS = 60


class State(Enum):
    """What becomes of a vendor's unit on this node."""

    FREE = "not masked"
    OURS = "masked by pvedrbdstor"
    FOREIGN = "masked, but not by pvedrbdstor"
    REPLACED = "replaced by a unit in /etc/systemd/system, which pvedrbdstor leaves alone"


@dataclass(frozen=True)
class Vendor:
    """The vendors' units of the system below ``root``. Raises SystemCallFailed, CommandFailed and CommandTimeout.

    node: the name of this node, as `nodes` in storage.cfg has it.
    """

    root: str = "/"
    node: str = field(default_factory=lambda: os.uname().nodename.partition(".")[0])

    def states(self) -> dict[str, State]:
        """What becomes of each unit now."""
        ours = self._recorded()
        return {unit: self._state(unit, unit in ours) for unit in UNITS}

    def mask(self) -> list[str]:
        """Mask what is not masked, and say what that was. The record comes first: a crash leaves nothing unaccounted for."""
        free = [unit for unit, state in self.states().items() if state is State.FREE]
        if free:
            self._record(self._recorded() | frozenset(free))
        for unit in free:
            path = self._unit_path(unit)
            with _explained("Masking", path):
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.symlink("/dev/null", path)
        self._let_systemd_know()
        return free

    def unmask(self) -> list[str]:
        """Give back what mask() took, nothing else, and say what that was."""
        ours = [unit for unit, state in self.states().items() if state is State.OURS]
        for unit in ours:
            with _explained("Unmasking", self._unit_path(unit)):
                os.unlink(self._unit_path(unit))
        self._record(frozenset())
        self._let_systemd_know()
        return ours

    def follow(self) -> list[str]:
        """Mask where storage.cfg has a storage of ours for this node, give back where it has none.

        Nothing changes while that cannot be told. What changed is returned.
        """
        ours = self.is_needed()
        if ours is None:
            return []
        return self.mask() if ours else self.unmask()

    def is_needed(self) -> bool | None:
        """Whether a storage of ours is configured for this node; None where storage.cfg is not there to read."""
        try:
            with open(self._path(_STORAGE_CFG), encoding="utf-8", errors="replace") as file:
                return bool(storage_ids_on(file.read(), self.node))
        except OSError:
            return None

    def _state(self, unit: str, recorded: bool) -> State:
        path = self._unit_path(unit)
        if not os.path.lexists(path):
            return State.FREE
        if not os.path.islink(path) or os.readlink(path) != "/dev/null":
            return State.REPLACED
        return State.OURS if recorded else State.FOREIGN

    def _recorded(self) -> frozenset[str]:
        path = self._path(_RECORD)
        with _explained("Reading", path):
            try:
                with open(path, encoding="ascii", errors="replace") as file:
                    return frozenset(file.read().split())
            except FileNotFoundError:
                return frozenset()

    def _record(self, units: frozenset[str]) -> None:
        """Write the record by one rename; no record where there is nothing to record."""
        path = self._path(_RECORD)
        with _explained("Writing", path):
            if not units:
                with suppress(FileNotFoundError):
                    os.unlink(path)
                return
            os.makedirs(os.path.dirname(path), exist_ok=True)
            files.replace(path, "".join(f"{unit}\n" for unit in sorted(units)), durable=True)

    def _let_systemd_know(self) -> None:
        """Have a running systemd read the units again if it does not know what is masked: it would still stop them."""
        if not os.path.isdir(self._path(_SYSTEMD_RUNS)):
            return
        show = ["systemctl", "show", "--property=LoadState", "--value", *UNITS]
        loaded = command.run(show, timeout=_SYSTEMCTL_SECONDS).stdout.split()
        masked = [state in (State.OURS, State.FOREIGN) for state in self.states().values()]
        if [state == "masked" for state in loaded] != masked:
            command.run(["systemctl", "daemon-reload"], timeout=_SYSTEMCTL_SECONDS)

    def _unit_path(self, unit: str) -> str:
        return self._path(f"{_UNIT_FOLDER}/{unit}")

    def _path(self, relative: str) -> str:
        return os.path.join(self.root, relative)


def mask_for(storage: str) -> None:
    """For the job that brings a storage up, which does not fail because of this.

    The storage may not be in storage.cfg yet: Proxmox activates it before it adds it. If it never gets there, the next
    boot gives the units back. A failure goes to standard error, the journal of the job.
    """
    try:
        Vendor().mask()
    except Error as error:
        print(f"pvedrbdstor: storage '{storage}': {error}", file=sys.stderr)


def ask_to_follow(_question: object = None) -> dict[str, bool]:
    """Have systemd run Vendor.follow(), for the monitor, which may not write to /etc; as work of a Helper."""
    if not os.path.isdir(f"/{_SYSTEMD_RUNS}"):
        return {"asked": False}
    command.run(["systemctl", "start", "--no-block", FOLLOW_UNIT], timeout=_SYSTEMCTL_SECONDS, check=False)
    return {"asked": True}


@contextmanager
def _explained(operation: str, path: str) -> Iterator[None]:
    """Turn an OSError into SystemCallFailed."""
    try:
        yield
    except OSError as error:
        raise SystemCallFailed(
            operation=operation, path=path, reason=error.strerror, remedy="Run it as root, on a writable file system"
        ) from error
