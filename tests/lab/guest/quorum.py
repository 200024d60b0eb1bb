"""libquorum by ctypes (quorum_initialize(3) and its kin): every notification of corosync's quorum, in order, none left out."""

from __future__ import annotations

import ctypes
import select
from dataclasses import dataclass

_CS_OK = 1
_TRACK_CURRENT_AND_CHANGES = 1 | 2
_DISPATCH_ALL = 2
_Notify = ctypes.CFUNCTYPE(
    None, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32)
)


class _Callbacks(ctypes.Structure):
    _fields_ = [("notify", _Notify)]


@dataclass(frozen=True)
class Notification:
    """One answer of corosync: is this node quorate, in which ring, with whom."""

    quorate: bool
    ring: int
    members: tuple[int, ...]


class Quorum:
    """A connection to corosync. Raises OSError when there is none, or no more; hangs while corosync stands still."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libquorum.so.5")
        self._heard: list[Notification] = []
        self._notify = _Notify(self._hear)
        self._handle = ctypes.c_uint64()
        kind = ctypes.c_uint32()
        callbacks = _Callbacks(self._notify)
        self._check(
            "initialize",
            self._library.quorum_initialize(ctypes.byref(self._handle), ctypes.byref(callbacks), ctypes.byref(kind)),
        )
        descriptor = ctypes.c_int()
        self._check("fd_get", self._library.quorum_fd_get(self._handle, ctypes.byref(descriptor)))
        self._descriptor = descriptor.value
        self._check("trackstart", self._library.quorum_trackstart(self._handle, _TRACK_CURRENT_AND_CHANGES))

    def wait(self, seconds: float) -> list[Notification]:
        """What corosync says within so many seconds, all of it, oldest first."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        if poll.poll(int(seconds * 1000)):
            self._check("dispatch", self._library.quorum_dispatch(self._handle, _DISPATCH_ALL))
        heard, self._heard[:] = list(self._heard), []
        return heard

    def close(self) -> None:
        self._library.quorum_finalize(self._handle)

    def _hear(
        self, _handle: int, quorate: int, ring: int, count: int, members: ctypes._Pointer[ctypes.c_uint32]
    ) -> None:
        self._heard.append(Notification(bool(quorate), ring, tuple(members[index] for index in range(count))))

    @staticmethod
    def _check(what: str, result: int) -> None:
        if result != _CS_OK:
            raise OSError(f"quorum_{what}: {result}")  # cs_error_t in corotypes.h
