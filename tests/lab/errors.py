"""What can go wrong in the lab itself, as opposed to what is tested in it."""

from __future__ import annotations


class LabError(Exception):
    """The lab could not do what it was asked: the message says what and, where it helps, what to do."""


class CommandFailed(LabError):
    """A command that had to succeed in a node did not."""

    def __init__(self, node: str, command: str, rc: int, out: str) -> None:
        self.node, self.command, self.rc, self.out = node, command, rc, out
        how = "did not finish in time" if rc == TIMED_OUT else f"ended with {rc}"
        super().__init__(f"on node {node}: {command.strip()!r} {how}:\n{out[-4000:]}")


#: The exit status of a command that was ended because its time was over, as timeout(1) has it.
TIMED_OUT = 124
