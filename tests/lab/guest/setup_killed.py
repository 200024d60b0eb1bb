"""`pvedrbdstor setup apply STORAGE --yes` that is killed at a fault point: `python3 -m tests.lab.guest.setup_killed POINT STORAGE`.

Where it does not come to that point it ends as it would.
"""

from __future__ import annotations

import os
import signal
import sys

from pvedrbdstor import faultpoints
from pvedrbdstor.cli.app import app


def main(point: str, storage: str) -> None:
    def kill(reached: str) -> None:
        if reached == point:
            os.kill(os.getpid(), signal.SIGKILL)

    faultpoints.hook = kill
    app.main(["setup", "apply", storage, "--yes"], prog_name="pvedrbdstor")


if __name__ == "__main__":
    main(*sys.argv[1:])
