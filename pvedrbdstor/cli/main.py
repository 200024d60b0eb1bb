"""Where the program starts: the ways that must be quick go straight, everything else through click.

Proxmox may start `pvedrbdstor rpc` for every call, and click costs more to load than many a call takes: so the exact
forms that the Perl client uses, and `--version`, are recognized here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line ``argv`` (without the program's name; default: the process's own) and exit with its status."""
    sys.exit(_run(list(sys.argv[1:] if argv is None else argv)))


def _run(argv: list[str]) -> int:
    match argv:
        case ["--version"]:
            from pvedrbdstor import __version__

            print(f"pvedrbdstor {__version__}")
            return 0
        case ["rpc"]:
            from pvedrbdstor.cli.wire import answer_line

            return answer_line()
        case ["rpc", "--stream", "--request", request]:
            from pvedrbdstor.cli.wire import answer_stream

            return answer_stream(request)
    from pvedrbdstor.cli.app import app

    app.main(argv, prog_name="pvedrbdstor")
    raise AssertionError("the application ends the process")
