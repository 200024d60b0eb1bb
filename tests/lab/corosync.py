"""Corosync on the nodes and its third vote, corosync-qnetd or a third full node: configuration, start, and its processes' end."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.lab.assets import REPOSITORY
from tests.lab.errors import LabError
from tests.lab.formation import on_each
from tests.lab.node import GUEST_SHARE, Node

TOTEM_PORT = 5405
QNETD_PORT = 5403
COROSYNC, QDEVICE, QNETD = "corosync", "corosync-qdevice", "corosync-qnetd"
_STAGED = f"{GUEST_SHARE}/etc-corosync"  # /etc/corosync as a boot finds it
_STATE = f"{GUEST_SHARE}/corosync-state"  # ring numbers outlive a reboot, as on a real disk
LOGS = REPOSITORY / "artifacts" / "lab" / "corosync"
_QUORATE_SECONDS = 150.0  # several changes of the membership, each waiting up to 30 s for the QDevice
_STARTS_SECONDS = 30.0
_CLUSTER = "lab"  # totem's cluster_name, which the witness and the certificates know too


@dataclass(frozen=True)
class Witness:
    """What gives the third vote. full: a third corosync node in place of corosync-qnetd. tls: the nodes reach qnetd by TLS."""

    full: bool = False
    tls: bool = False


class Corosync:
    """Corosync on ``nodes`` with the machine ``third`` for the third vote. Every start writes what a reboot forgets."""

    def __init__(self, nodes: Sequence[Node], third: Node, witness: Witness = Witness()) -> None:
        self.nodes = nodes
        self.third = third
        self.witness = witness

    @property
    def members(self) -> tuple[Node, ...]:
        """The nodes that run corosync."""
        return (*self.nodes, self.third) if self.witness.full else tuple(self.nodes)

    def form(self) -> None:
        """From booted nodes to three votes everywhere. Raises LabError."""
        key = os.urandom(256)
        for node in (*self.nodes, self.third):
            staged = node.share / "etc-corosync"
            staged.mkdir(exist_ok=True)
            (staged / "authkey").write_bytes(key)
            (staged / "corosync.conf").write_text(configuration(self.members, self.third, self.witness))
            (node.share / "corosync-state").mkdir(exist_ok=True)
        if self.witness.tls:
            self._make_certificates()
        try:
            self._form()
        except LabError as error:
            self._keep_logs(str(error))
            raise

    def _form(self) -> None:
        """QDevices only when the nodes know each other: corosync 3.1.7 ends itself when a node's QDevice is announced to it before
        that node is (votequorum.c, `sender_node != NULL`), as when both are started in the same seconds."""
        if not self.witness.full:
            self.start(self.third)
        on_each(self.members, self._start_corosync)
        for node in self.nodes:
            self.wait_for_votes(node, votes=2)
        on_each(self.members, self.start)
        for node in self.nodes:
            self.wait_for_votes(node)

    def _keep_logs(self, why: str) -> None:
        folder = LOGS / time.strftime("%Y%m%d-%H%M%S")
        for node in (*self.nodes, self.third):
            kept = folder / node.name
            kept.mkdir(parents=True, exist_ok=True)
            looked = node.sh("ps ax; free; ip neigh; ip -s link; corosync-cfgtool -n; dmesg | tail -n 40", 30)
            (kept / "state.txt").write_text(f"{why}\n{looked.out}")
            for file in (*node.share.glob("corosync*.out"), *node.share.glob("corosync*.log")):
                shutil.copy(file, kept)

    def start(self, node: Node) -> None:
        """Start what belongs on this node and does not run: after a boot, or after its death. Raises LabError."""
        if node not in self.members:
            self._configure(node)
            self._launch(node, QNETD, f"-s {'req' if self.witness.tls else 'off'}")
            return
        self._start_corosync(node)
        if not self.witness.full:
            self._launch(node, QDEVICE)

    def _configure(self, node: Node) -> None:
        node.run(f"mkdir -p {' '.join(_FOLDERS)} && cp -r {_STAGED}/. /etc/corosync/ && chmod -R go= /etc/corosync")

    def _start_corosync(self, node: Node) -> None:
        self._configure(node)
        self._launch(node, COROSYNC)
        answers = "corosync-cmapctl -g totem.version >/dev/null 2>&1"
        node.run(f"until {answers}; do kill -0 $(cat {pid_file(COROSYNC)}); sleep 0.1; done", _STARTS_SECONDS)

    def wait_for_votes(self, node: Node, votes: int = 3, timeout: float = _QUORATE_SECONDS) -> None:
        """Wait until the node is quorate with so many votes. Raises LabError."""
        deadline = time.monotonic() + timeout
        while True:
            state = quorum_state(node)
            if state.get("Quorate") == "Yes" and int(state.get("Total votes", 0)) >= votes:
                return
            if time.monotonic() > deadline:
                raise LabError(f"node {node.name} has not got {votes} votes: {state}")
            time.sleep(0.3)

    def signal(self, node: Node, program: str, number: signal.Signals) -> None:
        """Kill, stop or wake one of the programs. What stands still answers nobody, so that no one asks it here."""
        node.run(f"kill -{int(number)} $(cat {pid_file(program)})", 10)

    def _launch(self, node: Node, program: str, options: str = "") -> None:
        pid, log = pid_file(program), f"{GUEST_SHARE}/{program}.out"
        node.run(
            f"""kill -0 $(cat {pid} 2>/dev/null) 2>/dev/null && exit 0
setsid {program} -f {options} </dev/null >>{log} 2>&1 &
echo $! >{pid}"""
        )

    def _make_certificates(self) -> None:
        """As corosync-qdevice-net-certutil(8) has it, by hand: an authority on the witness, one certificate for all nodes."""
        first, *others = self.nodes
        server, client = "/etc/corosync/qnetd/nssdb", "/etc/corosync/qdevice/net/nssdb"
        self.third.run(
            f"rm -rf {server} && corosync-qnetd-certutil -i && cp {server}/qnetd-cacert.crt {GUEST_SHARE}/", 120
        )
        for node in self.nodes:
            (node.share / "qnetd-cacert.crt").write_bytes((self.third.share / "qnetd-cacert.crt").read_bytes())
            node.run(f"corosync-qdevice-net-certutil -i -c {GUEST_SHARE}/qnetd-cacert.crt", 120)
        first.run(
            f"corosync-qdevice-net-certutil -r -n {_CLUSTER} && cp {client}/qdevice-net-node.crq {GUEST_SHARE}/", 120
        )
        (self.third.share / "node.crq").write_bytes((first.share / "qdevice-net-node.crq").read_bytes())
        sign = f"corosync-qnetd-certutil -s -c {GUEST_SHARE}/node.crq -n {_CLUSTER}"
        self.third.run(f"{sign} && cp {server}/cluster-{_CLUSTER}.crt {GUEST_SHARE}/cluster.crt", 120)
        (first.share / "cluster.crt").write_bytes((self.third.share / "cluster.crt").read_bytes())
        accept = f"corosync-qdevice-net-certutil -M -c {GUEST_SHARE}/cluster.crt"
        first.run(f"{accept} && cp {client}/qdevice-net-node.p12 {GUEST_SHARE}/node.p12", 120)
        for node in others:
            (node.share / "node.p12").write_bytes((first.share / "node.p12").read_bytes())
            node.run(f"corosync-qdevice-net-certutil -m -c {GUEST_SHARE}/node.p12", 120)
        for node, folder in ((self.third, "qnetd"), *((node, "qdevice") for node in self.nodes)):
            node.run(f"cp -r /etc/corosync/{folder} {_STAGED}/")


_FOLDERS = (
    "/etc/corosync",
    "/var/log/corosync",
    "/var/lib/corosync",
    "/run/corosync-qdevice",
    "/run/corosync-qnetd",
)


def pid_file(program: str) -> str:
    """Where the pid of a program that start() has started is found in the node."""
    return f"/run/lab-{program}.pid"


def quorum_state(node: Node) -> dict[str, str]:
    """What corosync-quorumtool(8) says, name -> value; empty where corosync does not answer."""
    result = node.sh("timeout 5 corosync-quorumtool -s", 10)
    pairs = (line.partition(":") for line in result.out.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def configuration(members: Sequence[Node], third: Node, witness: Witness) -> str:
    """corosync.conf(5), with the times that Proxmox VE's clusters of two nodes have.

    Without realtime priority: corosync spins while it waits for the QDevice's vote, and on the one processor of a node here
    corosync-qdevice could not cast it.
    """
    nodes = "".join(
        f"  node {{\n    name: node{node.name}\n    nodeid: {node.number}\n    quorum_votes: 1\n"
        f"    ring0_addr: {node.address}\n  }}\n"
        for node in members
    )
    device = f"""  device {{
    model: net
    votes: 1
    net {{
      algorithm: ffsplit
      host: {third.address}
      tls: {"required" if witness.tls else "off"}
    }}
  }}
"""
    return f"""logging {{
  debug: off
  to_syslog: no
  to_stderr: no
  to_logfile: yes
  logfile: {GUEST_SHARE}/corosync.log
  timestamp: hires
}}
nodelist {{
{nodes}}}
quorum {{
  provider: corosync_votequorum
{"" if witness.full else device}}}
system {{
  sched_rr: no
  state_dir: {_STATE}
}}
totem {{
  cluster_name: {_CLUSTER}
  config_version: 1
  interface {{
    linknumber: 0
  }}
  ip_version: ipv4-6
  link_mode: passive
  secauth: on
  token: 3000
  consensus: 3600
  version: 2
}}
"""
