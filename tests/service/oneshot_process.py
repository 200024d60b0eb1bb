"""Run as a program: a one-shot with the fake dispatcher. Arguments: the test's folder, and for a stream the request."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from pvedrbdstor.call import Call
from pvedrbdstor.service import oneshot
from tests.service.fakes import Fake


class Streaming(Fake):
    """Copies from and to the stream it is given."""

    def dispatch(self, method: str, params: Mapping[str, object], call: Call, stream: int | None = None) -> object:
        if stream is None:
            return super().dispatch(method, params, call)
        if method == "volume_export":
            return self._write(stream, str(params["data"]).encode() * int(str(params.get("times", 1))))
        return self._read(stream, params, call)

    def _write(self, stream: int, data: bytes) -> None:
        while data:
            data = data[os.write(stream, data) :]

    def _read(self, stream: int, params: Mapping[str, object], call: Call) -> object:
        if params.get("until_gone"):
            self.gates.open("started")
            while True:
                call.check()
        if params.get("progress"):
            oneshot.PROGRESS_INTERVAL = 0.0
            call.advance(512, 2048)
            oneshot.PROGRESS_INTERVAL = 60.0
            call.advance(1024, 2048)
        if params.get("started"):
            os.read(stream, 4)
            self.gates.open("started")
        count = 0
        while data := os.read(stream, 65536):
            count += len(data)
        call.check()
        return {"bytes": count, "timeout": call.timeout}


if __name__ == "__main__":
    dispatcher = Streaming(Path(sys.argv[1]))
    sys.exit(oneshot.run_stream(dispatcher, sys.argv[2]) if len(sys.argv) > 2 else oneshot.run_line(dispatcher))
