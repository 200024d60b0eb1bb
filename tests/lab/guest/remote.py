"""Stands in for ssh between the nodes, as root, as Proxmox sets it up: the host has no sshd that a node could run.

python3 -S remote.py serve                    runs what it is told, each in a shell of its own
python3 -S remote.py ssh [-o X]... root@HOST -- COMMAND
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading

PORT = 2222


def serve() -> None:
    with socket.create_server(("", PORT)) as server:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection, connection.makefile("rwb") as file:
        done = subprocess.run(json.loads(file.readline()), shell=True, capture_output=True, check=False)
        answer = {"rc": done.returncode, "out": done.stdout.decode(), "err": done.stderr.decode()}
        file.write(json.dumps(answer).encode() + b"\n")


def ssh(words: list[str]) -> int:
    """The client: exit status 255 where the host cannot be reached, as ssh(1) has it."""
    end = words.index("--")
    host, command = words[end - 1].partition("@")[2], " ".join(words[end + 1 :])
    try:
        with socket.create_connection((host, PORT), 5) as connection, connection.makefile("rwb") as file:
            connection.settimeout(None)
            file.write(json.dumps(command).encode() + b"\n")
            file.flush()
            answer = json.loads(file.readline())
    except (OSError, ValueError) as error:
        print(f"ssh: connect to host {host}: {error}", file=sys.stderr)
        return 255
    sys.stdout.write(answer["out"])
    sys.stderr.write(answer["err"])
    return int(answer["rc"])


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    sys.exit(ssh(sys.argv[2:]))
