"""What `pvedrbdstor doctor` finds of guests, their images, kernels, the link and the clock; each cleared by doing what its remedy says.

Proxmox's own commands, apt and chrony are not in the lab: stand-ins do to the node's files what those do.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from tests.lab import storage
from tests.lab.cluster import Cluster
from tests.lab.doctoring import GUESTS, NEVER_COMPARED, Finding, doctor, prepare, told
from tests.lab.formation import MOUNT_POINT, STORAGE, on_each
from tests.lab.node import Node
from tests.lab.test_doctor_network import tell_speed

REPRODUCES = {
    *("guest-cache-unsafe", "guest-aio-native", "guest-flushes-lost"),
    *("volume-missing", "volume-orphaned", "volume-unreferenced"),
    *("kernel-no-module", "kernel-drbd-generation"),
    *("network-mtu-differs", "network-slow", "clock-skew", "verify-never", "verify-old", "storage-unusable"),
}
RECORD = f"/var/lib/pvedrbdstor/verify/last/{STORAGE}.json"
CONF = f"{GUESTS}/100.conf"
PROGRAMS = "/run/stand-ins"
LACKS, OTHER = "6.99.0-lab", "6.98.0-lab"
PIN = "/etc/kernel/proxmox-boot-pin"
MODULES = "".join(f"kernel/{name}.ko:\n" for name in ("drbd", "ocfs2", "ocfs2_stack_o2cb", "ocfs2_dlmfs"))
STAND_INS = {
    "qm": f"""case "$1 $2" in
"disk rescan") for file in {MOUNT_POINT}/images/$4/*.raw; do
    grep -q "${{file##*/}}" {GUESTS}/$4.conf || echo "unused0: {STORAGE}:$4/${{file##*/}}" >>{GUESTS}/$4.conf; done ;;
"set "*) sed -i "/^${{3#--}}:/d" {GUESTS}/$2.conf && echo "${{3#--}}: $4" >>{GUESTS}/$2.conf ;;
*) exit 1 ;; esac""",
    "pvesm": '[ "$1" = list ]',
    "apt": f"""case "$*" in
"install --reinstall proxmox-kernel") printf '{MODULES.replace(chr(10), chr(92) + "n")}' >/lib/modules/{LACKS}/modules.dep ;;
"remove drbd-dkms") echo 8.4.11 >/run/drbd-of-{OTHER} ;;
*) exit 1 ;; esac""",
    "dpkg": 'echo "proxmox-kernel: $2"',
    "proxmox-boot-tool": f"""case "$*" in
"kernel pin "*) mkdir -p /etc/kernel && echo "$3" >{PIN} ;;
refresh) ;;
*) exit 1 ;; esac""",
    "systemctl": "true",
    "ethtool": "true",
}


@pytest.fixture
def pair(volumes: Cluster) -> Iterator[Cluster]:
    prepare(volumes)
    for node in volumes.nodes:
        for name, text in STAND_INS.items():
            write_program(node, f"{PROGRAMS}/{name}", text)
    yield volumes


def write_program(node: Node, path: str, text: str) -> None:
    script = "#!/bin/sh\n" + text + "\n"
    node.run(f"mkdir -p {PROGRAMS} && printf %s {shlex.quote(script)} >{path} && chmod +x {path}")


def run(node: Node, finding: Finding, *expected: str) -> None:
    """The commands of the remedy, which are these, word by word."""
    assert finding["commands"] == list(expected), finding
    for command in expected:
        node.run(f"PATH={PROGRAMS}:$PATH; {command}", 120)


def test_guests_images_kernels_link_and_clock(pair: Cluster, vmid: int) -> None:
    a, b = pair.nodes
    whole, unsafe, native = (storage.alloc(a, 100, 1 << 20) for _ in range(3))
    orphan, unnamed = storage.alloc(a, vmid, 1 << 20), storage.alloc(a, 100, 1 << 20)
    for volid in (whole, unsafe, native):
        a.run(f"dd if=/dev/zero of={storage.path(a, volid)} bs=1M count=1 conv=notrunc status=none")
    lines = (
        f"scsi0: {unsafe},cache=unsafe,size=1M",
        f"scsi1: {native},cache=writeback,aio=native",
        f"scsi2: {whole}",
        f"scsi3: {STORAGE}:100/vm-100-disk-77.raw,cache=writeback",
    )
    a.run(f"printf '%s\\n' {shlex.join(lines)} >{CONF}")
    a.run(f"mkdir -p /lib/modules/{LACKS} /lib/modules/{OTHER} && touch /boot/vmlinuz-{LACKS} /boot/vmlinuz-{OTHER}")
    a.run(f"printf {shlex.quote(MODULES)} >/lib/modules/{OTHER}/modules.dep && echo 9.2.12 >/run/drbd-of-{OTHER}")
    a.run("rm /usr/sbin/modinfo")
    write_program(
        a, "/usr/sbin/modinfo", "cat /run/drbd-of-$2 2>/dev/null || echo 8.4.11"
    )  # `-k RELEASE -F version drbd`
    a.run(r"printf '\ndrbdocfs2: bad\n\tpath mnt/bad\n' >>/etc/pve/storage.cfg")
    b.run("ip link set vec0 mtu 1400 && date -s '+20 seconds'")
    on_each(pair.nodes, lambda node: tell_speed(node, 100))
    try:
        found = doctor(a)
        assert set(found) - NEVER_COMPARED == REPRODUCES - {"verify-never", "verify-old"}, list(found.values())
        run(a, told(found["guest-cache-unsafe"], "warning", ""), f"qm set 100 --scsi0 {unsafe},size=1M,cache=writeback")
        run(
            a,
            told(found["guest-aio-native"], "warning", ""),
            f"qm set 100 --scsi1 {native},cache=writeback,aio=io_uring",
        )
        run(a, told(found["guest-flushes-lost"], "hint", ""), f"qm set 100 --scsi2 {whole},cache=writeback")
        missing = told(found["volume-missing"], "error", "")
        run(a, missing, f"pvesm list {STORAGE}")
        assert "100/vm-100-disk-77.raw" in missing["title"] and "take the line out" in missing["remedy"]
        a.run(f"sed -i /vm-100-disk-77/d {CONF}")
        unreferenced = told(found["volume-unreferenced"], "hint", "")
        assert unreferenced["commands"][0] == "qm disk rescan --vmid 100"  # and pct's, for a container
        a.run(f"{PROGRAMS}/{unreferenced['commands'][0]}")
        orphaned = told(found["volume-orphaned"], "hint", "")
        run(a, orphaned, f"pvesm list {STORAGE}", "pvedrbdstor volume free --help")
        assert orphan.partition(":")[2] in orphaned["title"]
        a.run(f"pvedrbdstor volume free {orphan} --yes")  # as that help says

        kernel = told(found["kernel-no-module"], "warning", "nodea")
        assert LACKS in kernel["title"] and kernel["commands"][0] == f"dpkg -S /boot/vmlinuz-{LACKS}"
        running = a.run("touch /boot/vmlinuz-$(uname -r) && uname -r").strip()
        for command in kernel["commands"][2:]:
            a.run(f"{PROGRAMS}/{command.replace('RELEASE', running)}")
        pinned = doctor(a)
        for id_ in ("kernel-no-module", "kernel-drbd-generation"):
            assert f"while {running} is pinned" in told(pinned[id_], "hint", "nodea")["meaning"]
        a.run(f"rm {PIN}")  # what else the remedy offers
        package = a.run(f"{PROGRAMS}/{kernel['commands'][0]}").partition(":")[0]
        a.run(f"{PROGRAMS}/{kernel['commands'][1].replace('PACKAGE', package)}")
        run(a, told(found["kernel-drbd-generation"], "warning", "nodea"), "apt remove drbd-dkms")

        mtu = told(found["network-mtu-differs"], "warning", "nodea nodeb")
        assert mtu["commands"][-1] == "ip link set vec0 mtu 1400" and "on nodea 'ip link" in mtu["remedy"]
        a.run(mtu["commands"][-1])  # the lab's card keeps its link
        slow = found["network-slow"]  # one for each end
        assert slow["severity"] == "warning"
        run(a, slow, "ethtool vec0")
        on_each(pair.nodes, lambda node: tell_speed(node, 100_000))  # another cable
        unusable = told(found["storage-unusable"], "error", "")
        assert unusable["storage"] == "bad" and "Correct the section in /etc/pve/storage.cfg" in unusable["remedy"]
        a.run("sed -i '/^drbdocfs2: bad/,$d' /etc/pve/storage.cfg")
        skew = told(found["clock-skew"], "warning", "nodea nodeb")
        run(b, skew, "systemctl status chrony systemd-timesyncd ntpsec")
        b.run("date -s '-20 seconds'")  # what that service does once it asks the right servers
        left = doctor(a)
        assert set(left) <= NEVER_COMPARED, list(left.values())
    finally:
        b.run(f"date -s @{a.run('date +%s.%N').strip()}")
        on_each(pair.nodes, lambda node: node.run("ip link set vec0 mtu 1500; umount /sys/class/net/vec0/speed"))
        a.run(f"rm -rf {CONF} {PIN} /boot/vmlinuz-* /lib/modules/{LACKS} /lib/modules/{OTHER} /usr/sbin/modinfo")
        a.run("ln -s /bin/kmod /usr/sbin/modinfo; sed -i '/^drbdocfs2: bad/,$d' /etc/pve/storage.cfg")
        for volid in (whole, unsafe, native, unnamed):
            a.sh(f"pvedrbdstor volume free {volid} --yes")


@pytest.mark.soak
def test_comparisons_that_are_missing_or_old(pair: Cluster) -> None:
    a = pair.a
    a.run(f"rm -f {RECORD}")
    found = doctor(a)
    assert set(found) == {"verify-never"}, list(found.values())
    a.run(told(found["verify-never"], "hint", "")["commands"][0], 120)
    assert doctor(a) == {}
    on_each(pair.nodes, lambda node: node.run("date -s '+36 days'"))
    try:
        on_each(pair.nodes, lambda node: node.run(f"pvedrbdstor metadata save {STORAGE}", 60))
        old = doctor(a)
        a.run(told(old["verify-old"], "hint", "")["commands"][0], 120)
        assert doctor(a) == {}
    finally:
        on_each(pair.nodes, lambda node: node.run("date -s '-36 days'"))
        a.run(f"rm {RECORD}")
