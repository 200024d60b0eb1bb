"""`python3 -m tests.perl.real_backend`: the real service on real volumes, for the Perl tests, until standard input ends.

The volumes lie in a folder of a loop-mounted XFS, which can reflink as OCFS2 can; only the check that the folder is the
mirror is left out. Says where everything is in one line of JSON: `path`, `socket`, and `command`, which stands for
`pvedrbdstor` and runs this module again: `... rpc [--stream --request JSON]`, the one-shot on the same folder.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.service.methods import Dispatcher
from pvedrbdstor.service.oneshot import run_line, run_stream
from pvedrbdstor.volumes.store import Store
from tests.backend import start_backend
from tests.loopback import Loopback

_REPOSITORY = Path(__file__).resolve().parents[2]


def _open_folder(config: StorageConfig) -> Store:
    return Store(config, os.open(config.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def _dispatcher() -> Dispatcher:
    return Dispatcher(_open_folder)


def answer(arguments: list[str]) -> int:
    """What `pvedrbdstor rpc` does with these arguments; its exit status."""
    if arguments[1:3] == ["--stream", "--request"]:
        return run_stream(_dispatcher(), arguments[3])
    return run_line(_dispatcher())


def serve() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="pvedrbdstor-perl-") as name,
        Loopback(512, kind="xfs") as loopback,
        start_backend(Path(name), _dispatcher) as backend,
    ):
        command = Path(name) / "pvedrbdstor"
        command.write_text(f'#!/bin/sh\ncd "{_REPOSITORY}" && exec /usr/bin/python3 -m tests.perl.real_backend "$@"\n')
        command.chmod(0o755)
        where = {"path": str(loopback.path), "socket": backend.socket_path, "command": str(command)}
        print(json.dumps(where), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(answer(sys.argv[1:]))
    serve()
