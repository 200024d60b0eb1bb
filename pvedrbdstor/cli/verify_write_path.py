"""`pvedrbdstor verify STORAGE --write-path`: whether what is acknowledged is where it should be, in each way that guests write."""

from __future__ import annotations

import os
import time

from pvedrbdstor import nodes
from pvedrbdstor.cli import output
from pvedrbdstor.cli.interrupt import EXIT_STATUS
from pvedrbdstor.cli.progress import Progress
from pvedrbdstor.cli.session import Session
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import BadConfig, Error
from pvedrbdstor.verify.write_path import last

CANNOT = 2
"""The exit status where it is neither known to be right nor known to be wrong."""
SERVE = ("--serve", "--write-path")
_ALIVE_SECONDS = 15


def run(session: Session, storage: str, blocks: int | None = None) -> int:
    """Check it, tell it, and return the exit status: 0 all is well, 1 something is wrong, 2 it could not be checked."""
    began = time.time()
    try:
        return _run(session, session.storage(storage).config, blocks)
    except Error as error:
        if not isinstance(error, BadConfig):
            cause = str(error.fields.get("cause", error.message))
            _keep(storage, last.failed(session.node, began, time.time(), cause))
        output.print_error(error.message, kind=error.kind, code=error.code, exit_status=CANNOT, as_json=session.as_json)
        return CANNOT
    except KeyboardInterrupt:
        output.say("interrupted; both nodes remove the files that were written.")
        return EXIT_STATUS


def serve(session: Session, storage: str) -> int:
    """Be the other side. Questions and answers go over standard input and output, which nothing else may use."""
    from pvedrbdstor.verify.write_path import ground
    from pvedrbdstor.verify.write_path import serve as serving
    from pvedrbdstor.verify.write_path.probe import Probe

    config = session.storage(storage).config
    read_fd, write_fd = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    return serving.serve(read_fd, write_fd, lambda: Probe(ground.node_of(config, session.nodes_path)))


def _run(session: Session, config: StorageConfig, blocks: int | None) -> int:
    from pvedrbdstor.verify.job import other_node
    from pvedrbdstor.verify.write_path import ground, lead, pattern, report
    from pvedrbdstor.verify.write_path import serve as serving
    from pvedrbdstor.verify.write_path.probe import Probe
    from pvedrbdstor.verify.write_path.side import Here, There

    own = ground.own_name()
    other = other_node(config, own)
    argv = nodes.line(other, ["verify", config.id, *SERVE], alive=_ALIVE_SECONDS)

    def answer(read_fd: int, write_fd: int) -> int:
        return serving.serve(read_fd, write_fd, lambda: Probe(ground.node_of(config, session.nodes_path)))

    with (
        Here(own, config.id, answer) as here,
        There(other, config.id, argv) as there,
        Progress("Checking the write path") as progress,
    ):
        outcome = lead.check(config.id, here, there, blocks or pattern.BLOCKS_DEFAULT, progress=progress)
    _keep(config.id, last.check_of(outcome, time.time()))
    session.answer(report.as_json(outcome), report.text(outcome))
    return outcome.exit_status


def _keep(storage: str, check: last.Check) -> None:
    """For `mirror status`. That it cannot be kept changes nothing of what was found."""
    try:
        last.keep(storage, check)
    except OSError as error:
        output.say(f"'mirror status' will not know of it: {last.path(storage)} cannot be written ({error.strerror}).")
