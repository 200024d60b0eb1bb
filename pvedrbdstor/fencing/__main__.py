"""`python3 -m pvedrbdstor.fencing`: the guard, with as little around it as can be, since all of it is locked in memory."""

from __future__ import annotations

import gc
import sys

from pvedrbdstor.fencing import journal, residence
from pvedrbdstor.fencing.guard import Guard, World
from pvedrbdstor.fencing.journal import Log


def main(arguments: list[str]) -> int:
    """--log FILE: also there."""
    file = arguments[1] if len(arguments) == 2 and arguments[0] == "--log" else None
    if arguments and file is None:
        print("usage: python3 -m pvedrbdstor.fencing [--log FILE]", file=sys.stderr)
        return 2
    log = Log(file)
    files = residence.Files()
    try:
        guard = Guard(log, World(keep_files=files))
    except BlockingIOError:
        print("another guard runs: systemctl status pvedrbdstor-fence", file=sys.stderr)
        return 1
    for failure in residence.stay():
        log.say(failure, journal.WARNING)
    gc.collect()
    gc.freeze()  # what is here stays: later collections look at little
    log.say(f"the guard runs, with {files()} files kept in memory")
    guard.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
