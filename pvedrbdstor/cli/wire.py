"""`pvedrbdstor rpc` and `serve`, for Proxmox's plugin and for systemd. Loads no click: `rpc` may start for every call."""

from __future__ import annotations

import logging

from pvedrbdstor.cli import backend


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

    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    return server.serve(backend.load(), socket_path)
