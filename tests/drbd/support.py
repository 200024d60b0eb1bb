"""The captures of real clusters, read for every test that needs them."""

from __future__ import annotations

from pathlib import Path

from pvedrbdstor.drbd.events2 import State, parse_now

CAPTURES = Path(__file__).parent / "captures"
FILES = sorted(path.relative_to(CAPTURES).as_posix() for path in CAPTURES.glob("[0-9]*/*.txt"))
STREAMS = sorted(path.name for path in CAPTURES.glob("stream/*.ev"))
STATE_COMMAND = "drbdsetup events2 --now --statistics"
_CLUSTER = "/sys/kernel/config/cluster/pve/"


def outputs(name: str) -> dict[str, str]:
    """Command -> its output, from a file of `### command`, output, `### rc=N`."""
    found: dict[str, str] = {}
    command = ""
    for line in (CAPTURES / name).read_text().splitlines(keepends=True):
        if line.startswith("### rc="):
            command = ""
        elif line.startswith("### "):
            command = line[4:].strip()
            found[command] = ""
        elif command:
            found[command] += line
    return found


def output_of(name: str, beginning: str) -> str | None:
    """The output of the one command that begins so; None where the capture does not have it."""
    return next((text for command, text in outputs(name).items() if command.startswith(beginning)), None)


def state_of(name: str) -> State:
    return parse_now(outputs(name)[STATE_COMMAND])


def stream(name: str) -> list[str]:
    """The lines of a recorded stream, without the recorder's time of day."""
    return [line.partition(" ")[2] for line in (CAPTURES / "stream" / name).read_text().splitlines(keepends=True)]


def configfs_of(name: str) -> dict[str, str]:
    """Path below the o2cb cluster 'pve' -> content."""
    pairs = (line.partition("=") for line in (output_of(name, "find /sys/kernel/config") or "").splitlines())
    return {path.removeprefix(_CLUSTER): value for path, _, value in pairs if path.startswith(_CLUSTER)}


def mount_options_of(name: str) -> set[str] | None:
    """Of the OCFS2 mount; empty where nothing is mounted, None where the capture does not tell."""
    text = output_of(name, "grep -E")
    if text is None:
        return None
    lines = [line for line in text.splitlines() if " /mnt/o ocfs2 " in line]
    return set(lines[0].split(" ocfs2 ")[1].split(" ")[0].split(",")) if lines else set()
