"""One request answered in a process that is killed at a fault point: what a crash of the backend leaves behind.

`python3 -m tests.lab.guest.crash POINT REQUEST` with the request as on the wire; `POINT` may be `list`, which does the
work and prints the points that were reached as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from pvedrbdstor import faultpoints
from pvedrbdstor.call import Call
from pvedrbdstor.service.methods import Dispatcher


def main() -> None:
    point, request = sys.argv[1], json.loads(sys.argv[2])
    reached: list[str] = []

    def hook(name: str) -> None:
        reached.append(name)
        if name == point:
            os.kill(os.getpid(), signal.SIGKILL)

    faultpoints.hook = hook
    call = Call(method=request["method"], storage=request["params"]["storage"]["id"])
    Dispatcher().dispatch(request["method"], request["params"], call)
    print(json.dumps(reached))


if __name__ == "__main__":
    main()
