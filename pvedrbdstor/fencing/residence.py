"""Staying in memory and on the processor while everything else waits for a disk that is frozen."""

from __future__ import annotations

import ctypes
import glob
import mmap
import os

_MCL_CURRENT, _MCL_FUTURE = 1, 2
_PR_SET_IO_FLUSHER = 57
_RB_AUTOBOOT = 0x01234567
_OOM_NEVER = "-1000"
THREAD_STACK = 2 << 20
"""Bytes: what is mapped is locked, so not 8 MiB; corosync's libraries put 1 MiB there (IPC_DISPATCH_SIZE)."""

PROGRAMS = (
    "/usr/lib/pvedrbdstor/fence-peer",
    "/bin/sh",
    "/sbin/drbdadm",
    "/usr/lib/drbd/drbdadm-84",
    "/lib64/ld-linux-x86-64.so.2",
    "/etc/drbd.conf",
    "/etc/drbd.d/*",
    "/usr/lib/*/libc.so.6",
)
"""What the kernel starts to call the handler: /sbin/drbdadm (drbd.usermode_helper), which runs it by a shell."""


def stay() -> list[str]:
    """Lock this process in memory, let its allocations wait for no I/O, and let it run before ordinary processes; what it starts, threads
    and programs, inherits all but the lock. One sentence for each thing that could not be had.
    """
    failures = []
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE) != 0:
        failures.append(f"memory is not locked (mlockall: {os.strerror(ctypes.get_errno())})")
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(_priority()))
    except OSError as error:
        failures.append(f"no realtime priority ({error.strerror})")
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(_OOM_NEVER)
    except OSError as error:
        failures.append(f"may be killed when memory runs out ({error.strerror})")
    if libc.prctl(_PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0:
        failures.append(f"memory may be had only after I/O (prctl: {os.strerror(ctypes.get_errno())})")
    return failures


class Files:
    """Files whose pages stay in memory, those that match ``programs``; called again, also what has replaced them since."""

    def __init__(self, programs: tuple[str, ...] = PROGRAMS) -> None:
        self._programs = programs
        self._kept: dict[str, tuple[tuple[int, int], mmap.mmap]] = {}

    def __call__(self) -> int:
        """How many there are; one that cannot be had is left out."""
        for path in (found for pattern in self._programs for found in glob.glob(pattern)):
            try:
                state = os.stat(path)
                which = (state.st_ino, state.st_mtime_ns)
                if path not in self._kept or self._kept[path][0] != which:
                    self._kept[path] = (which, _mapped(path))
            except (OSError, ValueError):
                continue
        return len(self._kept)


def _priority() -> int:
    """The highest, which corosync has, too: while it waits for the QDevice in a change of the membership it spins, and on one
    processor a guard with a lower priority was measured not to run for 13 s. Here a look takes a millisecond, ten times a second."""
    return os.sched_get_priority_max(os.SCHED_RR)


def _mapped(path: str) -> mmap.mmap:
    """A file whose pages MCL_FUTURE locks as they are mapped."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)


class Reset:
    """The way to reset this node at once: nothing is flushed, no process is asked. Opened before it is needed."""

    def __init__(self, path: str = "/proc/sysrq-trigger") -> None:
        try:
            self._fd: int | None = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError:  # a kernel without CONFIG_MAGIC_SYSRQ
            self._fd = None
        self._libc = ctypes.CDLL(None, use_errno=True)

    def __call__(self) -> None:
        """sysrq-b (admin-guide/sysrq.rst), which this file takes whatever kernel.sysrq allows, else reboot(2). Raises OSError."""
        if self._fd is not None:
            os.write(self._fd, b"b")
        elif self._libc.reboot(_RB_AUTOBOOT) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


class Activity:
    """Whether a process has had the processor since it was last asked about."""

    def __init__(self) -> None:
        self._pid: int | None = None
        self._last: bytes | None = None

    def of(self, pid: int | None) -> None:
        self._pid, self._last = pid, None

    def ran(self) -> bool:
        """By its context switches (proc_pid_status(5)): corosync wakes up several times a second whatever it does."""
        if self._pid is None:
            return False
        try:
            with open(f"/proc/{self._pid}/status", "rb", buffering=0) as file:
                text = os.read(file.fileno(), 8192)
        except OSError:
            return False
        now = text[text.find(b"voluntary_ctxt_switches") :]
        before, self._last = self._last, now
        return before is not None and before != now
