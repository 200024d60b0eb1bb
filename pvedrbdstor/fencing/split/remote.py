"""The other node: its name from DRBD's configuration, and how to run `pvedrbdstor` there, as Proxmox's nodes do it: ssh as root."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence

from pvedrbdstor import command
from pvedrbdstor.drbd import config
from pvedrbdstor.drbd.metadata import Range
from pvedrbdstor.errors import CommandFailed, CommandTimeout, Error
from pvedrbdstor.fencing.split.ranges import CHUNK, batched, total
from pvedrbdstor.fencing.split.side import Side, from_json

MEMBERS = "/etc/pve/.members"
KNOWN_HOSTS = "/etc/pve/nodes/{node}/ssh_known_hosts"  # since PVE 8.2 (PVE::SSHInfo)
_CONNECT_SECONDS = 5
_ASK_SECONDS = 600.0
_WORDS_MAX = 60_000
"""Of one request, in bytes: a single argument of a program may have 128 KiB (MAX_ARG_STRLEN, execve(2)), quotes and all."""
_BYTES_MAX = 2 << 30
"""Of the data that one request is about: what a slow disk reads well within _ASK_SECONDS."""
_RANGE_WORDS = 45
"""Two numbers of 20 digits, brackets and commas."""


def other_nodes(dump: str, resource: str, own: str) -> tuple[str, ...]:
    """The hosts that `drbdadm dump` has for a resource beside this one, by Proxmox's names of nodes, which have no domain."""
    short = [host.partition(".")[0] for host in config.hosts(dump, resource)]
    return tuple(host for host in short if host != own.partition(".")[0])


def ssh(node: str, address: str | None, known_hosts: str | None, words: Sequence[str]) -> list[str]:
    """The command line that runs ``words`` on a node; it never asks anything."""
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_SECONDS}", "-o", f"HostKeyAlias={node}"]
    if known_hosts is not None:
        options += ["-o", f"UserKnownHostsFile={known_hosts}", "-o", "GlobalKnownHostsFile=none"]
    return ["ssh", *options, f"root@{address or node}", "--", shlex.join(words)]


def run(node: str, words: Sequence[str], timeout: float = _ASK_SECONDS) -> str:
    """What `pvedrbdstor WORDS` prints on a node. Raises CommandFailed, CommandTimeout."""
    known = KNOWN_HOSTS.format(node=node)
    line = ssh(node, _address(node), known if os.path.exists(known) else None, ["pvedrbdstor", *words])
    return command.run(line, timeout=timeout, limit=64 << 20).stdout


def side(node: str, storage: str) -> Side:
    """What the other node knows, without digests. Raises CommandFailed, CommandTimeout, BadRequest."""
    return from_json(_json(run(node, ["split-brain", "show", storage, "--local", "--quick", "--json"])))


def digests(node: str, storage: str, wanted: Mapping[str, Sequence[Range]]) -> dict[str, tuple[str, ...]]:
    """Digests of the other node's files, as files.digests() gives them; a file of which not all came is left out.

    Raises CommandFailed, CommandTimeout.
    """
    found: dict[str, list[str]] = {}
    broken: set[str] = set()
    for batch in batched(wanted, _cost, _BYTES_MAX):
        text = run(node, ["split-brain", "show", storage, "--digests", json.dumps(batch, separators=(",", ":"))])
        answer = _json(text)
        for path, ranges in batch.items():
            values = answer.get(path) if isinstance(answer, dict) else None
            if isinstance(values, list) and len(values) == total(ranges) // CHUNK:
                found.setdefault(path, []).extend(map(str, values))
            else:
                broken.add(path)
    return {path: tuple(values) for path, values in found.items() if path not in broken}


def connect(node: str, storage: str, keep: str) -> None:
    """Let the node to keep do its part. Raises CommandFailed, CommandTimeout."""
    run(node, ["split-brain", "resolve", storage, "--keep", keep, "--yes"], timeout=60)


def why_not(error: Error) -> str:
    """In a few words, why the other node could not be asked."""
    if isinstance(error, CommandTimeout):
        return "it did not answer in time"
    if isinstance(error, CommandFailed):
        return str(error.fields["output"]).splitlines()[-1].strip().rstrip(".") or "it said nothing"
    return error.message.rstrip(".")


def _cost(path: str, length: int, new: bool) -> float:
    """Of a piece in a request, which may cost 1: it is bounded by its words as a shell quotes them, and by what is to be read."""
    words = _RANGE_WORDS + (len(shlex.quote(json.dumps(path))) + 4 if new else 0)
    return words / _WORDS_MAX + length / _BYTES_MAX


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _address(node: str) -> str | None:
    """The node's address in the cluster, from pmxcfs; None where it does not tell, and the name must do."""
    try:
        with open(MEMBERS, encoding="utf-8") as file:
            found = json.load(file)["nodelist"][node]["ip"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None
