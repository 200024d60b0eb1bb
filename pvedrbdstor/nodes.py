"""The other node: its name from DRBD's configuration, and how to run `pvedrbdstor` there, as Proxmox's nodes do it: ssh as root."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Way:
    """How a node is reached. address: in the cluster; None: by its name. known_hosts: the file with its host key; None: where ssh looks by itself."""

    node: str
    address: str | None = None
    known_hosts: str | None = None

    @property
    def host(self) -> str:
        return self.address or self.node

    @property
    def scp_host(self) -> str:
        """An IPv6 address in brackets, as its colons would end it."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def options(self) -> list[str]:
        """Of ssh and scp."""
        found = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_SECONDS}", "-o", f"HostKeyAlias={self.node}"]
        if self.known_hosts is not None:
            found += ["-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "GlobalKnownHostsFile=none"]
        return found

    @property
    def shown(self) -> str:
        return shlex.join(self.options)


def asking(way: Way, words: str) -> str:
    """The line to be typed that runs ``words`` there as the program does: plain `ssh` finds no host keys of nodes since PVE 8.2."""
    return f"ssh {way.shown} root@{way.host} -- {words}"


def copying(way: Way, path: str, to: str) -> str:
    """The line to be typed that fetches a file from there."""
    return f"scp {way.shown} root@{way.scp_host}:{path} {to}"


def way(node: str) -> Way:
    """Asks /etc/pve, which may hang."""
    known = KNOWN_HOSTS.format(node=node)
    return Way(node, _address(node), known if os.path.exists(known) else None)


def host_key(node: str) -> str:
    """What helps where a node's host key is not known: the node itself writes it into /etc/pve (PVE::Cluster::Setup)."""
    return f"if it says that the host key verification failed, run 'pvecm updatecerts' on {node}"


def ssh(way: Way, words: Sequence[str], *, alive: int | None = None) -> list[str]:
    """The command line that runs ``words`` on a node; it never asks anything. alive: seconds of silence after which ssh gives up."""
    options = way.options
    if alive is not None:
        options += ["-o", f"ServerAliveInterval={alive // 3}", "-o", "ServerAliveCountMax=3"]
    return ["ssh", *options, f"root@{way.host}", "--", shlex.join(words)]


def line(node: str, words: Sequence[str], *, alive: int | None = None) -> list[str]:
    """The command line for `pvedrbdstor WORDS` on a node, by its address in the cluster."""
    return ssh(way(node), ["pvedrbdstor", *words], alive=alive)


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
