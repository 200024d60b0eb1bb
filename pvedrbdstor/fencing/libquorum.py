"""Corosync's libquorum, libvotequorum and libcmap by their C interface: every notification, and questions that can hang.

Sources: quorum_overview(3), votequorum_overview(3), cmap_overview(3) and their headers. All calls block while corosync's ring
is being formed (up to quorum.device.sync_timeout) and for ever while it is stopped: follow() belongs in a thread of its own.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from pvedrbdstor.fencing.arbiter import Flag, Votes
from pvedrbdstor.fencing.corosync_conf import Timing
from pvedrbdstor.fencing.rules import Ring

_OK, _TRY_AGAIN = 1, 6
_DISPATCH_ALL = 2
_TRACK_CURRENT_AND_CHANGES = 1 | 2
_NAME = 255
_ASK_SECONDS = 0.25
"""A QDevice that has lost its vote reconnects after up to 4.5 s, at random (qdevice-model-net.c): that must be seen."""
_TIMING_SECONDS = 5.0

_Notify = ctypes.CFUNCTYPE(
    None, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32)
)


class _QuorumCallbacks(ctypes.Structure):
    _fields_ = [("notify", _Notify)]


class _VotequorumCallbacks(ctypes.Structure):
    _fields_ = [("quorum", ctypes.c_void_p), ("expected", ctypes.c_void_p), ("nodes", ctypes.c_void_p)]


class _VotequorumInfo(ctypes.Structure):
    _fields_ = [
        ("node_id", ctypes.c_uint),
        ("node_state", ctypes.c_uint),
        ("node_votes", ctypes.c_uint),
        ("node_expected_votes", ctypes.c_uint),
        ("highest_expected", ctypes.c_uint),
        ("total_votes", ctypes.c_uint),
        ("quorum", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("qdevice_votes", ctypes.c_uint),
        ("qdevice_name", ctypes.c_char * _NAME),
    ]


class ConnectionLost(Exception):
    """Corosync does not run, or the connection to it broke."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Corosync's answers to questions of that time; all notifications from before it have been handed over."""

    asked_at: float
    quorate: bool
    votes: Votes


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection broke, or began: what happened in between is not known."""

    at: float
    why: str


@dataclass(frozen=True, slots=True)
class Connected:
    """me: this node's id. pid: corosync's process, None where it is not told."""

    me: int
    pid: int | None


Word = Ring | Confirmed | Lost | Connected | Timing


def boot_clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def follow(say: Callable[[Word], None], stopped: Callable[[], bool] = lambda: False) -> None:
    """Tell everything that corosync says, for ever, through connections that come and go."""
    lost = ""
    while not stopped():
        try:
            with_corosync = _Connection(say)
        except (ConnectionLost, OSError) as error:  # also: its libraries are not there
            if str(error) != lost:
                lost = str(error)
                say(Lost(boot_clock(), lost))
            time.sleep(0.5)
            continue
        say(Lost(boot_clock(), "the connection to corosync is new"))
        lost = ""
        try:
            with_corosync.follow(stopped)
        except ConnectionLost as error:
            lost = str(error)
            say(Lost(boot_clock(), lost))
        finally:
            with_corosync.close()


class _Connection:
    def __init__(self, say: Callable[[Word], None]) -> None:
        self._say = say
        self._quorum = ctypes.CDLL("libquorum.so.5")
        self._votequorum = ctypes.CDLL("libvotequorum.so.8")
        self._handle, self._votes = ctypes.c_uint64(), ctypes.c_uint64()
        self._cmap = _Cmap()
        try:
            self.me = self._cmap.this_node()
            self._open()
        except ConnectionLost:
            self.close()
            raise

    def _open(self) -> None:
        self._callback = _Notify(self._notified)
        self._callbacks = _QuorumCallbacks(self._callback)
        kind = ctypes.c_uint32()
        self._must(
            self._quorum.quorum_initialize(
                ctypes.byref(self._handle), ctypes.byref(self._callbacks), ctypes.byref(kind)
            ),
            "quorum_initialize",
        )
        fd = ctypes.c_int()
        self._must(self._quorum.quorum_fd_get(self._handle, ctypes.byref(fd)), "quorum_fd_get")
        self._fd = fd.value
        none = _VotequorumCallbacks()
        self._must(
            self._votequorum.votequorum_initialize(ctypes.byref(self._votes), ctypes.byref(none)),
            "votequorum_initialize",
        )

    def follow(self, stopped: Callable[[], bool]) -> None:
        """Raises ConnectionLost."""
        self._say(Connected(self.me, _pid_of_peer(self._fd)))
        self._must(self._quorum.quorum_trackstart(self._handle, _TRACK_CURRENT_AND_CHANGES), "quorum_trackstart")
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        due = 0.0
        while not stopped():
            if boot_clock() >= due:
                due = boot_clock() + _TIMING_SECONDS  # a reload changes it
                self._tell_timing()
            poll.poll(_ASK_SECONDS * 1000)
            self._dispatch()
            asked_at, quorate = boot_clock(), ctypes.c_int()
            answer = self._quorum.quorum_getquorate(self._handle, ctypes.byref(quorate))
            votes = self._ask_votes() if answer != _TRY_AGAIN else None
            self._dispatch()
            if votes is None:
                continue
            self._must(answer, "quorum_getquorate")
            self._say(Confirmed(asked_at, bool(quorate.value), votes))

    def _tell_timing(self) -> None:
        timing = self._cmap.timing()
        if timing is not None:
            self._say(timing)

    def close(self) -> None:
        self._cmap.close()
        self._quorum.quorum_finalize(self._handle)
        self._votequorum.votequorum_finalize(self._votes)

    def _notified(self, _handle: int, quorate: int, seq: int, count: int, members: ctypes._Pointer) -> None:  # type: ignore[type-arg]
        self._say(Ring(boot_clock(), bool(quorate), seq, frozenset(members[index] for index in range(count))))

    def _dispatch(self) -> None:
        answer = self._quorum.quorum_dispatch(self._handle, _DISPATCH_ALL)
        if answer != _TRY_AGAIN:
            self._must(answer, "quorum_dispatch")

    def _ask_votes(self) -> Votes | None:
        info = _VotequorumInfo()
        answer = self._votequorum.votequorum_getinfo(self._votes, ctypes.c_uint(self.me), ctypes.byref(info))
        if answer == _TRY_AGAIN:
            return None
        self._must(answer, "votequorum_getinfo")
        return Votes(
            node_id=info.node_id,
            expected=info.node_expected_votes,
            highest_expected=info.highest_expected,
            total=info.total_votes,
            quorum=info.quorum,
            flags=Flag(info.flags),
        )

    @staticmethod
    def _must(answer: int, call: str) -> None:
        if answer != _OK:
            raise ConnectionLost(f"corosync does not run ({call}: {answer})")


class _Cmap:
    """Corosync's map of what is configured and what is in force."""

    def __init__(self) -> None:
        """Raises ConnectionLost, OSError without the library."""
        self._library = ctypes.CDLL("libcmap.so.4")
        self._handle = ctypes.c_uint64()
        if (answer := self._library.cmap_initialize(ctypes.byref(self._handle))) != _OK:
            raise ConnectionLost(f"corosync does not run (cmap_initialize: {answer})")

    def this_node(self) -> int:
        """Its id. Raises ConnectionLost."""
        answer, value = self._number(b"runtime.votequorum.this_node_id")
        if answer != _OK:
            raise ConnectionLost(f"corosync does not tell this node's id ({answer}): is its provider votequorum?")
        return value

    def timing(self) -> Timing | None:
        """What is in force, whatever the file has by now; None where it is not told."""
        found = [self._number(key) for key in (b"runtime.config.totem.token", b"runtime.config.totem.consensus")]
        if any(answer != _OK for answer, _ in found):
            return None
        token, consensus = (value for _, value in found)
        return Timing(token / 1000, consensus / 1000)

    def close(self) -> None:
        self._library.cmap_finalize(self._handle)

    def _number(self, key: bytes) -> tuple[int, int]:
        value = ctypes.c_uint32()
        return self._library.cmap_get_uint32(self._handle, key, ctypes.byref(value)), value.value


def _pid_of_peer(fd: int) -> int | None:
    """The process at the other end of a Unix socket (SO_PEERCRED, unix(7))."""
    try:
        with socket.socket(fileno=os.dup(fd)) as other:
            pid: int
            pid, _, _ = struct.unpack("3i", other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            return pid or None
    except OSError:
        return None
