"""`./dev lab`: a running cluster for a person. Without arguments it boots one and holds it until Ctrl-C."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

from tests.lab import storage
from tests.lab.assets import CACHE
from tests.lab.cluster import Cluster
from tests.lab.errors import LabError
from tests.lab.node import Node

CONTROL = CACHE / "control.sock"
HELP = """without ACTION: boot a cluster and hold it until Ctrl-C. From another terminal:
  sh a|b [COMMAND]   run a command in a node, or give a prompt
  cut, heal          the network between the nodes
  drop PORT...       lose single TCP ports (7789 DRBD, 7777 o2net) until heal
  kill a|b           take a node's power away
  start a|b          boot it again (DRBD and the mount are not brought up)
  status             boots of each node, and whether they run
  destroy            end it all"""


class Control:
    """Carries out what `./dev lab ACTION` asks for on a running cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.ended = threading.Event()

    def do(self, action: str, words: list[str]) -> tuple[int, str]:
        """Exit status and text for the one who asks. Raises LabError."""
        network = self.cluster.network
        match action, words:
            case "sh", [name, *command]:
                result = self._node(name).sh(" ".join(command), timeout=3600)
                return result.rc, result.out
            case "cut", []:
                network.cut()
            case "heal", []:
                network.heal()
            case "drop", [_, *_]:
                network.drop(*(int(port) for port in words))
            case "kill", [name]:
                self._node(name).kill()
            case "start", [name]:
                self._node(name).start()
                self._node(name).wait_ready()
            case "destroy", []:
                self.ended.set()
            case "status", []:
                states = [
                    f"{node.name}: {'runs' if node.running else 'off'}, booted {node.boots} times"
                    for node in self.cluster.nodes
                ]
                return 0, "\n".join([*states, f"folder: {self.cluster.folder}", ""])
            case _:
                raise LabError(f"no such action: {action} {' '.join(words)}")
        return 0, ""

    def _node(self, name: str) -> Node:
        found = {node.name: node for node in self.cluster.nodes}.get(name)
        if found is None:
            raise LabError(f"there is no node {name!r}: say a or b")
        return found

    def serve(self, listener: socket.socket) -> None:
        """Answer one request a connection, until the listener is closed."""
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, client.makefile("rw") as stream:
            action, *words = json.loads(stream.readline())
            try:
                answer = self.do(action, words)
            except (LabError, ValueError) as error:
                answer = (1, f"{error}\n")
            try:
                stream.write(json.dumps(answer) + "\n")
            except OSError:  # who asked has gone
                pass


def hold(control_path: Path) -> int:
    """Boot a cluster with the service running, and hold it until Ctrl-C or `destroy`."""
    started = time.monotonic()
    with Cluster(progress=lambda text: print(f"{time.monotonic() - started:5.1f} s  {text}", flush=True)) as cluster:
        storage.install(cluster.nodes)
        control = Control(cluster)
        control_path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(control_path))
            listener.listen()
            threading.Thread(target=control.serve, args=(listener,), daemon=True).start()
            print("ready: ./dev lab sh a, ./dev lab cut ...; Ctrl-C ends it", flush=True)
            try:
                control.ended.wait()
            except KeyboardInterrupt:
                pass
            finally:
                control_path.unlink(missing_ok=True)
    return 0


def ask(control_path: Path, action: str, words: list[str]) -> int:
    """Have the holder of the cluster do something: its exit status."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(control_path))
        except OSError as error:
            raise LabError("no lab is running: start one with ./dev lab") from error
        with client.makefile("rw") as stream:
            stream.write(json.dumps([action, *words]) + "\n")
            stream.flush()
            rc, text = json.loads(stream.readline())
    print(text, end="")
    return int(rc)


def prompt(control_path: Path, name: str) -> int:
    """Read commands for a node, until the end of input. Each runs in a shell of its own."""
    while True:
        try:
            command = input(f"node{name}# " if os.isatty(0) else "")
        except EOFError:
            return 0
        if command.strip():
            ask(control_path, "sh", [name, command])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./dev lab", epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", nargs="?")
    parser.add_argument("words", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    try:
        if arguments.action is None:
            return hold(CONTROL)
        if arguments.action == "sh" and len(arguments.words) == 1:
            return prompt(CONTROL, arguments.words[0])
        return ask(CONTROL, arguments.action, arguments.words)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
