"""The storage under test in the nodes: its service, and calls through the Perl plugin as Proxmox makes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.lab.assets import REPOSITORY
from tests.lab.errors import LabError
from tests.lab.formation import MOUNT_POINT, STORAGE, on_each
from tests.lab.node import Node

SOCKET = "/run/pvedrbdstor/backend.sock"
PID_FILE = "/run/pvedrbdstor/serve.pid"
LOG = "/run/pvedrbdstor/serve.log"
WORK = f"{MOUNT_POINT}/.drbdocfs2/work"
PLUGIN_COMMAND = (
    f"/usr/bin/perl -T -I {REPOSITORY}/perl-shim -I {REPOSITORY}/tests/perl/standins "
    f"{REPOSITORY}/tests/lab/guest/plugin.pl"
)


class PluginError(LabError):
    """A PVE::Storage function died: the message is what Proxmox would show."""


@dataclass(frozen=True)
class Answer:
    """What a PVE::Storage function returned in list context, and how long it took on the node."""

    values: list[Any]
    seconds: float

    @property
    def value(self) -> Any:
        """The first or only value."""
        return self.values[0] if self.values else None


def install(nodes: Sequence[Node]) -> None:
    """Put the command `pvedrbdstor` into the nodes, running from the checkout, and start the service."""
    on_each(nodes, _install)


def _install(node: Node) -> None:
    write_program(node)
    start_service(node)


def write_program(node: Node) -> None:
    """Make the command `pvedrbdstor`, which runs from the checkout."""
    node.run(
        f"""set -e
mkdir -p /run/pvedrbdstor
printf '#!/bin/sh\\nPYTHONPATH={REPOSITORY} PYTHONPYCACHEPREFIX=/run/pycache exec /usr/bin/python3 -m pvedrbdstor "$@"\\n' \\
    >/usr/bin/pvedrbdstor
chmod 0755 /usr/bin/pvedrbdstor"""
    )


def start_service(node: Node) -> None:
    """Start `pvedrbdstor serve`, unless it runs, and wait until it listens. Raises LabError with its log."""
    result = node.sh(
        f"""cd /
kill -0 "$(cat {PID_FILE} 2>/dev/null)" 2>/dev/null && exit 0
pvedrbdstor serve --socket {SOCKET} </dev/null >>{LOG} 2>&1 &
echo $! >{PID_FILE}
for try in $(seq 200); do
    [ -S {SOCKET} ] && exit 0
    kill -0 $! 2>/dev/null || break
    sleep 0.05
done
cat {LOG}
exit 1"""
    )
    if result.rc != 0:
        raise LabError(f"the service did not start on node {node.name}:\n{result.out}")


def stop_service(node: Node) -> None:
    """End the service as systemd does, and wait until it and its workers are gone."""
    node.run(f"pid=$(cat {PID_FILE}); kill $pid; while [ -e /proc/$pid ]; do sleep 0.05; done")


def call(node: Node, function: str, *arguments: object, timeout: float = 120) -> Answer:
    """Call PVE::Storage::FUNCTION(config, ARGUMENTS...) under perl -T in the node. Raises PluginError when it dies."""
    return call_many(node, [(function, *arguments)], timeout)[0]


def call_many(node: Node, requests: Sequence[tuple[object, ...]], timeout: float = 120) -> list[Answer]:
    """Several calls (function, arguments...) one after the other in one process. The first that dies is raised."""
    lines = [json.dumps({"call": function, "args": arguments}) for function, *arguments in requests]
    out = node.run(f"{PLUGIN_COMMAND} <<'REQUESTS'\n{chr(10).join(lines)}\nREQUESTS", timeout)
    answers = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    for answer in answers:
        if "error" in answer:
            raise PluginError(answer["error"].strip())
    return [Answer(answer["result"], answer["seconds"]) for answer in answers]


def free_all(node: Node) -> None:
    """Free every volume of the storage, templates last."""
    volids = sorted(listing(node), key=lambda volid: "/base-" in volid)
    if volids:
        call_many(node, [("vdisk_free", volid) for volid in volids])


def alloc(node: Node, vmid: int, size: int, format: str = "raw", name: str | None = None) -> str:
    """Allocate an image of ``size`` bytes: its volume ID."""
    return str(call(node, "vdisk_alloc", STORAGE, vmid, format, name, size // 1024).value)


def path(node: Node, volid: str, snapshot: str | None = None) -> str:
    return str(call(node, "path", volid, *([snapshot] if snapshot else [])).value)


def listing(node: Node, vmid: int | None = None) -> dict[str, dict[str, Any]]:
    """Volume ID -> what the storage tells of it."""
    images = call(node, "vdisk_list", STORAGE, vmid).value[STORAGE]
    return {image["volid"]: image for image in images}


def leftovers(node: Node) -> list[str]:
    """Everything below images/ and work/ that should not be there once all volumes were freed."""
    found = node.run(f"cd {MOUNT_POINT} && find images .drbdocfs2/work -mindepth 1 2>/dev/null || true")
    return found.split()
