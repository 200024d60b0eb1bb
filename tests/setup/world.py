"""Nodes as facts, for tests: two of a Proxmox cluster with a QDevice, an empty disk each and a link between them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pvedrbdstor.fencing.arbiter import Flag, Votes
from pvedrbdstor.setup.answers import Answers
from pvedrbdstor.setup.facts import FORMAT, Disk, Facts, Interface
from pvedrbdstor.setup.plan import Plan, make
from pvedrbdstor.setup.steps import Refusal

UUID = "0123456789ABCDEF0123456789ABCDEF"
ALIVE = Flag.QUORATE | Flag.QDEVICE_REGISTERED | Flag.QDEVICE_ALIVE | Flag.QDEVICE_CAST_VOTE
_DEVICE = "  device {\n    model: net\n    votes: 1\n    net {\n      algorithm: ffsplit\n      host: 192.0.2.13\n    }\n  }\n"


def corosync(device: bool = True, token: int = 3000) -> str:
    nodes = "".join(
        f"  node {{\n    name: pve{at}\n    nodeid: {at}\n    quorum_votes: 1\n    ring0_addr: 192.0.2.1{at}\n  }}\n"
        for at in (1, 2)
    )
    quorum = f"quorum {{\n  provider: corosync_votequorum\n{_DEVICE if device else ''}}}\n"
    return f"nodelist {{\n{nodes}}}\n{quorum}totem {{\n  token: {token}\n  version: 2\n}}\n"


def disk(node: int = 1, **changes: Any) -> Disk:
    names = ("/dev/sdb", f"/dev/disk/by-id/wwn-0x50000000000000{node}b")
    whole = Disk("/dev/sdb", names, "disk", 1 << 40, 512, 4096, f"wwn=0x50000000000000{node}b serial=S{node}")
    whole = replace(
        whole, model="DISK", serial=f"S{node}", udev=(f"ID_WWN=0x50000000000000{node}b", f"ID_SERIAL=S{node}")
    )
    return replace(whole, **changes)


def system_disk(node: int = 1) -> Disk:
    """What nobody may ever touch."""
    return Disk(
        "/dev/sda",
        ("/dev/sda",),
        "disk",
        1 << 38,
        512,
        512,
        f"wwn=0x50000000000000{node}a",
        signatures=("gpt", "ext4 (on /dev/sda2)"),
        users=("/dev/sda2: it is mounted on /",),
    )


def facts(node: int = 1, **changes: Any) -> Facts:
    interfaces = (
        Interface("vmbr0", (f"192.0.2.1{node}/24",), 1500),
        Interface("ens1", (f"10.10.10.{node}/24",), 9000, 10000),
    )
    found = Facts(
        format=FORMAT,
        version="0.1.0",
        host=f"pve{node}",
        kernel="6.8.12-1-pve",
        drbd="8.4.11",
        ocfs2=True,
        packages={"drbd-utils": "9.22.0-1"},
        missing=(),
        lvm=True,
        guard=True,
        votes=Votes(node, 3, 3, 3, 2, ALIVE),
        disks=(system_disk(node), disk(node)),
        interfaces=interfaces,
        files={
            "/etc/corosync/corosync.conf": corosync(),
            "/etc/drbd.conf": 'include "drbd.d/global_common.conf";\ninclude "drbd.d/*.res";\n',
            "/etc/default/o2cb": "O2CB_ENABLED=false\nO2CB_BOOTCLUSTER=ocfs2\n",
            "/etc/pve/storage.cfg": "dir: local\n\tpath /var/lib/vz\n\tcontent iso\n",
            "/etc/lvm/lvm.conf": 'devices {\n\tglobal_filter=["r|/dev/zd.*|","r|/dev/rbd.*|"]\n}\n',
        },
        folders={},
        groups=("pve",),
    )
    return replace(found, **changes)


def nodes(**changes: Any) -> dict[str, Facts]:
    """Both, with the same changes; of a disk of this world each gets its own."""
    return {f"pve{at}": facts(at, **{key: _own(at, value) for key, value in changes.items()}) for at in (1, 2)}


def _own(node: int, value: Any) -> Any:
    if not isinstance(value, tuple):
        return value
    first, own = disk().identity, disk(node).identity
    return tuple(
        replace(each, identity=own) if isinstance(each, Disk) and each.identity == first else each for each in value
    )


def answers(**changes: Any) -> Answers:
    given = Answers("ha", {"pve1": "/dev/sdb", "pve2": "/dev/sdb"}, UUID, network="10.10.10.0/24")
    return replace(given, **changes)


def planned(found: dict[str, Facts] | None = None, **changes: Any) -> Plan:
    made = make(found or nodes(), answers(**changes), "pve1")
    assert isinstance(made, Plan), made
    return made


def refused(found: dict[str, Facts], **changes: Any) -> tuple[Refusal, ...]:
    made = make(found, answers(**changes), "pve1")
    assert not isinstance(made, Plan)
    return made


def with_files(found: Facts, **files: str | None) -> Facts:
    """files: by a short name: corosync, cluster, o2cb, storage, firewall, host, lvm, drbd; None takes one away."""
    paths = {
        "corosync": "/etc/corosync/corosync.conf",
        "cluster": "/etc/ocfs2/cluster.conf",
        "o2cb": "/etc/default/o2cb",
        "storage": "/etc/pve/storage.cfg",
        "firewall": "/etc/pve/firewall/cluster.fw",
        "host": "/etc/pve/local/host.fw",
        "lvm": "/etc/lvm/lvm.conf",
        "drbd": "/etc/drbd.conf",
        "r0": "/etc/drbd.d/r0.res",
    }
    together: dict[str, str | None] = {**found.files, **{paths[name]: text for name, text in files.items()}}
    return replace(found, files={path: text for path, text in together.items() if text is not None})
