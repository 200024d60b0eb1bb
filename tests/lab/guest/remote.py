"""Stands in for ssh between the nodes, as root, as Proxmox sets it up: the host has no sshd that a node could run.

python3 -S remote.py serve                    runs what it is told, each in a shell of its own
python3 -S remote.py ssh [-o X]... root@HOST [--] COMMAND

Standard input goes there and both outputs come back as they are written, each piece with a byte that says whose it is and its length.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO

PORT = 2222
_PIECE = struct.Struct(">BI")
_CHUNK = 1 << 16
_ENDED = 0  # followed by the exit status instead of a length


def serve() -> None:
    with socket.create_server(("", PORT)) as server:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection, connection.makefile("rb") as file:
        command = json.loads(file.readline())
        child = subprocess.Popen(
            command, shell=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert child.stdin is not None
        lock = threading.Lock()
        threading.Thread(target=_feed, args=(file, child.stdin), daemon=True).start()
        outputs = [
            threading.Thread(target=_send, args=(connection, lock, number, stream), daemon=True)
            for number, stream in ((1, child.stdout), (2, child.stderr))
        ]
        for thread in outputs:
            thread.start()
        for thread in outputs:
            thread.join()
        with suppress(OSError):
            connection.sendall(_PIECE.pack(_ENDED, child.wait() & 0xFF))
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def _feed(file: IO[bytes], stdin: IO[bytes]) -> None:
    """What the client sends, up to its end, or the end of the connection."""
    with suppress(OSError, ValueError):
        while data := file.read1(_CHUNK):  # type: ignore[attr-defined]
            stdin.write(data)
            stdin.flush()
    with suppress(OSError):
        stdin.close()


def _send(connection: socket.socket, lock: threading.Lock, number: int, stream: IO[bytes]) -> None:
    while data := os.read(stream.fileno(), _CHUNK):
        with lock, suppress(OSError):
            connection.sendall(_PIECE.pack(number, len(data)) + data)


def ssh(words: list[str]) -> int:
    """The client: exit status 255 where the host cannot be reached, as ssh(1) has it."""
    while words[0] == "-o":
        words = words[2:]
    host, command = words[0].partition("@")[2], " ".join(words[2 if words[1] == "--" else 1 :])
    try:
        with socket.create_connection((host, PORT), 5) as connection, connection.makefile("rb") as file:
            connection.settimeout(None)
            connection.sendall(json.dumps(command).encode() + b"\n")
            threading.Thread(target=_take, args=(connection,), daemon=True).start()
            return _print(file)
    except (OSError, struct.error) as error:
        print(f"ssh: connect to host {host}: {error}", file=sys.stderr)
        return 255


def _take(connection: socket.socket) -> None:
    with suppress(OSError):
        while data := os.read(0, _CHUNK):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)


def _print(file: IO[bytes]) -> int:
    while True:
        number, length = _PIECE.unpack(file.read(_PIECE.size))
        if number == _ENDED:
            return int(length)
        data = memoryview(file.read(length))
        while data:
            data = data[os.write(number, data) :]


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    status = ssh(sys.argv[2:])
    sys.stdout.flush()
    os._exit(status)  # a thread may still wait for standard input
