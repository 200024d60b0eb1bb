"""The other node: its name from DRBD's configuration, and how to run `pvedrbdstor` there, as Proxmox's nodes do it: ssh as root."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Sequence

from pvedrbdstor.drbd import config
from pvedrbdstor.errors import CommandFailed, CommandTimeout, Error

MEMBERS = "/etc/pve/.members"
KNOWN_HOSTS = "/etc/pve/nodes/{node}/ssh_known_hosts"  # since PVE 8.2 (PVE::SSHInfo)
_CONNECT_SECONDS = 5


def other_nodes(dump: str, resource: str, volume: int, own: str) -> tuple[str, ...]:
    """The hosts beside this one that have a copy of a volume by `drbdadm dump`: there is nothing to ask a tiebreaker without a disk,
    which need not have pvedrbdstor. By Proxmox's names of nodes, which have no domain."""
    return beside(own, config.hosts_with_disk(dump, resource, volume))


def beside(own: str, names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, without its domain and without this node's."""
    short = dict.fromkeys(name.partition(".")[0] for name in names)
    return tuple(name for name in short if name != own.partition(".")[0])


def ssh(
    node: str, address: str | None, known_hosts: str | None, words: Sequence[str], *, alive: int | None = None
) -> list[str]:
    """The command line that runs ``words`` on a node; it never asks anything. alive: seconds of silence after which ssh gives up."""
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_SECONDS}", "-o", f"HostKeyAlias={node}"]
    if known_hosts is not None:
        options += ["-o", f"UserKnownHostsFile={known_hosts}", "-o", "GlobalKnownHostsFile=none"]
    if alive is not None:
        options += ["-o", f"ServerAliveInterval={alive // 3}", "-o", "ServerAliveCountMax=3"]
    return ["ssh", *options, f"root@{address or node}", "--", shlex.join(words)]


def line(node: str, words: Sequence[str], *, alive: int | None = None) -> list[str]:
    """The command line for `pvedrbdstor WORDS` on a node, by its address in the cluster."""
    known = KNOWN_HOSTS.format(node=node)
    return ssh(node, _address(node), known if os.path.exists(known) else None, ["pvedrbdstor", *words], alive=alive)


def why_not(error: Error) -> str:
    """In a few words, why the other node could not be asked."""
    if isinstance(error, CommandTimeout):
        return "it did not answer in time"
    if isinstance(error, CommandFailed):
        return str(error.fields["output"]).splitlines()[-1].strip().rstrip(".") or "it said nothing"
    return error.message.rstrip(".")


def _address(node: str) -> str | None:
    """The node's address in the cluster, from pmxcfs; None where it does not tell, and the name must do."""
    try:
        with open(MEMBERS, encoding="utf-8") as file:
            found = json.load(file)["nodelist"][node]["ip"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None
