"""What decides in the nodes who may go on when the peer is lost: the product's guard and handler, or a test's wrong rule."""

from __future__ import annotations

import signal

from tests.lab import assets, storage
from tests.lab.assets import REPOSITORY
from tests.lab.formation import Fencing
from tests.lab.node import GUEST_SHARE, Node

LOG = "guard.log"  # in a node's shared folder
WIN = "WIN"  # stands in the log's line about a node that was told to go on
HANDLER = "/usr/lib/pvedrbdstor/fence-peer"
_UNFENCE = "/usr/lib/pvedrbdstor/unfence-peer"
_GUARD_PID = "/run/lab-guard.pid"
_STATUS = "/run/pvedrbdstor-fence/status.json"


class Protection:
    """The product's own."""

    fencing = Fencing(HANDLER)

    def install(self, node: Node) -> None:
        """Put it into a node that has booted, and start it."""
        handler = assets.prepare_handler()
        node.run(f"install -D -m 0755 {handler} {HANDLER} && install -D -m 0755 {handler} {_UNFENCE}")
        storage.write_program(node)
        self.start(node)

    def start(self, node: Node) -> None:
        """Start the guard, unless it runs."""
        node.run(
            f"""kill -0 $(cat {_GUARD_PID} 2>/dev/null) 2>/dev/null && exit 0
setsid pvedrbdstor fencing guard --log {GUEST_SHARE}/{LOG} </dev/null >>{GUEST_SHARE}/guard.out 2>&1 &
echo $! >{_GUARD_PID}"""
        )

    def ready(self, node: Node) -> bool:
        """Whether the node could go on alone, were the other lost now, and knows the times that corosync has in force: a guard that
        has just begun has not seen enough."""
        result = node.sh(f'grep -q \'"timing": {{.*"handicap": null\' {_STATUS}', 10)
        return result.rc == 0

    def kill(self, node: Node) -> None:
        """End the guard without a warning."""
        node.run(f"kill -{int(signal.SIGKILL)} $(cat {_GUARD_PID})")

    def remove_handler(self, node: Node) -> None:
        node.run(f"rm {self.fencing.handler}")


class ObviousRule(Protection):
    """guest/obvious_rule.py, which is wrong. It needs no guard."""

    fencing = Fencing("/usr/lib/lab/obvious-rule")

    def install(self, node: Node) -> None:
        script = node.share / "obvious-rule"
        program = "/usr/bin/python3 -m tests.lab.guest.obvious_rule"
        script.write_text(f"#!/bin/sh\ncd {REPOSITORY} && exec {program} {GUEST_SHARE}/{LOG}\n")
        node.run(f"install -D -m 0755 {GUEST_SHARE}/obvious-rule {self.fencing.handler}")

    def start(self, node: Node) -> None:
        """There is no guard."""

    def ready(self, node: Node) -> bool:
        """It never remembers anything."""
        return True

    def kill(self, node: Node) -> None:
        """There is no guard."""


def wins(node: Node) -> int:
    """How often the node was told to go on, as its log says that lies outside of it."""
    log = node.share / LOG
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return sum(WIN in line for line in lines)
