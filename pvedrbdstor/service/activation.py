"""The socket we listen on, systemd's or our own, and the word to systemd that we are ready."""

from __future__ import annotations

import os
import socket
import stat

from pvedrbdstor.errors import SystemCallFailed

_FIRST_FD = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START
_BACKLOG = 512


def inherited_socket() -> socket.socket | None:
    """The listening socket systemd passed to us (sd_listen_fds(3)), or None. Raises SystemCallFailed on a wrong one."""
    count = os.environ.pop("LISTEN_FDS", None)
    pid = os.environ.pop("LISTEN_PID", None)
    os.environ.pop("LISTEN_FDNAMES", None)
    if count is None or pid != str(os.getpid()):
        return None
    if count != "1":
        raise failed(f"descriptor {_FIRST_FD}", f"systemd passed {count} sockets", "Set one in pvedrbdstor.socket")
    try:
        listener = socket.socket(fileno=_FIRST_FD)
        usable = (
            listener.family == socket.AF_UNIX
            and listener.type == socket.SOCK_STREAM
            and listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        )
    except OSError as error:
        raise failed(f"descriptor {_FIRST_FD}", error.strerror, "Read the unit pvedrbdstor.socket") from error
    if not usable:
        raise failed(f"descriptor {_FIRST_FD}", "it is no listening unix socket", "Read the unit pvedrbdstor.socket")
    os.set_inheritable(_FIRST_FD, False)
    listener.setblocking(False)
    return listener


class OwnSocket:
    """A socket made by us at ``path``, mode 0600; a stale one there is replaced, but only if nobody answers on it."""

    def __init__(self, path: str) -> None:
        """Raises SystemCallFailed."""
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        new = f"{path}.{os.getpid()}"
        try:
            _refuse_unless_stale(path)
            try:
                self.listener.bind(new)
                os.chmod(new, 0o600)
                self.listener.listen(_BACKLOG)
                self._inode = os.stat(new).st_ino
                os.rename(new, path)
            except OSError as error:
                if os.path.lexists(new):
                    os.unlink(new)
                reason = error.strerror or str(error)
                raise failed(path, reason, "Does its folder exist, and is the path short enough?") from error
        except BaseException:
            self.listener.close()
            raise

    def remove(self) -> None:
        """Remove the path, unless somebody else's socket has taken the place of ours."""
        try:
            if os.lstat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        except FileNotFoundError:
            pass


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)), if it asked to be told: "READY=1", "STOPPING=1"."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(address)
            sender.sendall(state.encode())
    except OSError:
        pass  # we work as well without anybody knowing


def _refuse_unless_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise failed(path, error.strerror, "Check the path") from error
    if not stat.S_ISSOCK(mode):
        raise failed(path, "something that is no socket lies there", "Remove it, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return
        except OSError as error:
            raise failed(path, f"it cannot be probed ({error})", "Remove it, or choose another path") from error
    raise failed(path, "another server answers there", "Stop that one, or choose another path")


def failed(path: str, reason: str | None, remedy: str) -> SystemCallFailed:
    """Why there is nothing to listen on."""
    return SystemCallFailed(operation="Listening", path=path, reason=reason, remedy=remedy)
