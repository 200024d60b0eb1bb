"""`pvedrbdstor rpc` and `serve`, for Proxmox's plugin and for systemd. Loads no click: `rpc` may start for every call."""

from __future__ import annotations

import logging
import os
import sys

from pvedrbdstor.cli import backend

_RUN = "/run/pvedrbdstor"  # a service on a socket elsewhere is a test's, and has no monitor
_FORMAT = "%(levelname)s: %(message)s"
_MONITOR = (sys.executable, "-m", "pvedrbdstor", "monitor", "--of-service")


def answer_line() -> int:
    """Answer the one request line on standard input; the exit status is 0, or the error's."""
    from pvedrbdstor.service import oneshot

    return oneshot.run_line(backend.load_or_explain())


def answer_stream(request: str) -> int:
    """Answer ``request``, whose bulk data is on standard input or goes to standard output."""
    from pvedrbdstor.service import oneshot

    return oneshot.run_stream(backend.load_or_explain(), request)


def serve(socket_path: str | None) -> int:
    """Serve on ``socket_path``, or on systemd's socket, until SIGTERM. Raises errors.Error when that cannot begin."""
    from pvedrbdstor.service import server

    logging.basicConfig(level=logging.INFO, format=_FORMAT)
    in_place = socket_path is None or os.path.dirname(socket_path) == _RUN
    return server.serve(backend.load(), socket_path, companion=_MONITOR if in_place else None)


def monitor(*, of_service: bool) -> None:
    """Watch the storages until SIGTERM, or until the service that started us has gone. Raises errors.Error."""
    from pvedrbdstor.mirror.live.monitor import Monitor

    handler = logging.StreamHandler()
    handler.setFormatter(_JournalFormat() if "JOURNAL_STREAM" in os.environ else logging.Formatter(_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    parent = os.getppid()
    Monitor().run(orphaned=lambda: of_service and os.getppid() != parent)


class _JournalFormat(logging.Formatter):
    """The severity in front, as journald takes it from a service's standard error (sd-daemon(3))."""

    def format(self, record: logging.LogRecord) -> str:
        severity = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6}.get(record.levelname, 7)
        return f"<{severity}>" + super().format(record).replace("\n", " ")
