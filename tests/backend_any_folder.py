"""Run as a program: the real backend on a plain folder, with no look at mount, OCFS2 or DRBD. For tests and bench only.

    /usr/bin/python3 tests/backend_any_folder.py serve SOCKET         until SIGTERM; sd_notify(3) says when it is ready
    /usr/bin/python3 tests/backend_any_folder.py rpc                  one request line on stdin
    /usr/bin/python3 tests/backend_any_folder.py rpc --stream JSON    export or import

The folder is the ``path`` of the storage in each request. Its file system must share blocks (reflink).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.service import oneshot, server
from pvedrbdstor.service.methods import Dispatcher
from pvedrbdstor.volumes.store import Store


def open_folder(config: StorageConfig) -> Store:
    """Open whatever lies at the storage's path."""
    return Store(config, os.open(config.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def any_folder() -> Dispatcher:
    """The real dispatcher, for ``tests.backend.start_backend``."""
    return Dispatcher(open_folder)


def main(arguments: list[str]) -> int:
    match arguments:
        case ["serve", path]:
            return server.serve(any_folder(), path)
        case ["rpc"]:
            return oneshot.run_line(any_folder())
        case ["rpc", "--stream", request]:
            return oneshot.run_stream(any_folder(), request)
    sys.stderr.write(__doc__ or "")
    return 64


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
