"""The order of boot and shutdown under a real systemd, with doubles of Proxmox's units and a program that only takes notes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.machine import BootedMachine

NOTES = "/root/notes"
NOTE = f'#!/bin/sh\necho "$*" >>{NOTES}\n'
USERS = ["pvestatd", "pvedaemon", "pvescheduler", "pve-guests", "pve-ha-lrm"]
"""What uses storages."""
GROUND = ["networking", "pve-cluster", "corosync"]
"""What a storage stands on."""
# Stands for the installed program: notes when it was called and when it ended.
PROGRAM = f"""#!/bin/sh
echo "begin $*" >>{NOTES}
case "$*" in
    serve) exec python3 /root/serve.py ;;
    "mirror up --all --wait 90") cat /root/status >/dev/null 2>&1 && exec sh /root/status ;;
esac
sleep 0.5
echo "end $*" >>{NOTES}
"""
SERVE = f"""
import os, signal, socket
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
signal.sigwait([signal.SIGTERM])
with open("{NOTES}", "a") as notes:
    print("end serve", file=notes)
"""
UP = "mirror up --all --wait 90"
DOWN = "mirror down --all --stop"


def unit(name: str, lines: str = "") -> str:
    """A double: notes when it starts and stops, and takes its time for stopping."""
    return (
        f"[Unit]\nDescription=double of {name}\n{lines}\n[Service]\nType=oneshot\nRemainAfterExit=yes\n"
        f"ExecStart=/usr/local/bin/note start {name}\nExecStop=/bin/sleep 0.3\nExecStop=/usr/local/bin/note stop {name}\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )


@pytest.fixture
def node(booted: BootedMachine) -> BootedMachine:
    """A node of Proxmox VE that is switched off: the real units, doubles of Proxmox's, the program replaced by PROGRAM."""
    folder = "/etc/systemd/system"
    booted.write(f"{folder}/networking.service", unit("networking", "Before=network.target network-online.target"))
    booted.write(f"{folder}/pve-cluster.service", unit("pve-cluster"))
    booted.write(f"{folder}/corosync.service", unit("corosync", "After=pve-cluster.service"))
    booted.write(f"{folder}/pve-storage.target", "[Unit]\nDescription=double\n[Install]\nWantedBy=multi-user.target\n")
    for name in USERS:
        booted.write(f"{folder}/{name}.service", unit(name, "After=pve-cluster.service"))
    for path, text in (("/usr/local/bin/note", NOTE), ("/usr/bin/pvedrbdstor", PROGRAM)):
        booted.write(path, text)
        booted.run("chmod", "755", path)
    booted.write("/root/serve.py", SERVE)
    booted.run("systemctl", "daemon-reload")
    booted.run("systemctl", "enable", "pve-storage.target", *(f"{name}.service" for name in GROUND + USERS))
    booted.power_off()
    booted.shell(f"rm -f {NOTES}")
    return booted


def notes(machine: BootedMachine) -> list[str]:
    return machine.shell(f"cat {NOTES}").splitlines()


def assert_order(noted: list[str], *before: str, then: str) -> None:
    """Each of ``before`` was noted once, and earlier than ``then``."""
    for note in before:
        assert noted.count(note) == noted.count(then) == 1, noted
        assert noted.index(note) < noted.index(then), noted


def test_storages_come_up_after_network_and_cluster_and_before_what_uses_them(node: BootedMachine) -> None:
    node.boot()
    noted = notes(node)
    assert_order(noted, *(f"start {name}" for name in GROUND), then=f"begin {UP}")
    for name in USERS:
        assert_order(noted, f"end {UP}", then=f"start {name}")
    reached = "systemctl show --property=ActiveEnterTimestampMonotonic --value"
    storage = int(node.shell(f"{reached} pve-storage.target"))
    assert storage >= int(node.shell(f"{reached} pvedrbdstor-boot.service"))


def test_they_go_down_after_what_uses_them_and_before_cluster_and_network(node: BootedMachine) -> None:
    node.boot()
    node.run("systemctl", "start", "pvedrbdstor.service")
    node.power_off()
    noted = notes(node)
    assert_order(noted, *(f"stop {name}" for name in USERS), then=f"begin {DOWN}")
    assert_order(noted, "end serve", then=f"begin {DOWN}")  # it holds no mount any more
    for name in GROUND:
        assert_order(noted, f"end {DOWN}", then=f"stop {name}")


@pytest.mark.parametrize(
    ("status", "limit"),
    [pytest.param("exit 75", 120, id="fails"), pytest.param("exec sleep 300", 5, id="hangs")],
)
def test_a_boot_goes_on_when_bringing_up(node: BootedMachine, status: str, limit: int) -> None:
    """... and shows it; and the shutdown takes down what there is all the same."""
    node.write("/root/status", status)
    node.write("/etc/systemd/system/pvedrbdstor-boot.service.d/limit.conf", f"[Service]\nTimeoutStartSec={limit}\n")
    node.boot(ends_as="degraded")
    assert node.shell("systemctl --failed --plain --no-legend").split()[0] == "pvedrbdstor-boot.service"
    for name in USERS:
        assert_order(notes(node), f"begin {UP}", then=f"start {name}")
    node.power_off()
    assert_order(notes(node), *(f"stop {name}" for name in USERS), then=f"begin {DOWN}")


def test_a_storage_is_brought_up_by_its_own_name_and_goes_down_at_shutdown(node: BootedMachine) -> None:
    """`-` is an escaped `/` to systemd. Nothing but the bring-up was started here: not the boot unit, not the other."""
    node.run("systemctl", "disable", "pvedrbdstor-boot.service", "pvedrbdstor-mirrors.service")
    node.boot()
    node.run("systemctl", "start", "pvedrbdstor-bringup@my-ha_2.x.service")
    assert "end mirror up my-ha_2.x --job" in notes(node)
    assert f"begin {DOWN}" not in notes(node)
    node.power_off()
    assert_order(notes(node), *(f"stop {name}" for name in USERS), then=f"begin {DOWN}")


def test_a_storage_can_be_brought_up_while_the_boot_waits_for_it(node: BootedMachine) -> None:
    """As the real program does it: the boot unit starts the storage's own unit and waits."""
    node.write("/root/status", f"systemctl start pvedrbdstor-bringup@ha.service; echo 'end {UP}' >>{NOTES}")
    node.boot()
    assert_order(notes(node), "end mirror up ha --job", then=f"end {UP}")


def test_a_mount_stays_for_those_who_use_it_and_goes_before_the_network(node: BootedMachine) -> None:
    """systemd unmounts everything at shutdown: the unit the program writes says when. Here of a file system any kernel has."""
    look = f"mountpoint -q /mnt/pve/ha && echo mounted >>{NOTES} || echo not mounted >>{NOTES}"
    for name in ("pve-guests", "networking"):
        drop_in = f"[Service]\nExecStop=\nExecStop=/bin/sleep 1\nExecStop=/bin/sh -c '{look}'\n"
        node.write(f"/etc/systemd/system/{name}.service.d/look.conf", drop_in)
    node.boot()
    unit_text = (
        "from pvedrbdstor.mirror.bringup.mounting import unit_text; from pvedrbdstor.config import StorageConfig"
    )
    text = node.run(
        "python3", "-c", f"{unit_text}; print(unit_text(StorageConfig('ha', '/mnt/pve/ha', 'r0'), 0))"
    ).stdout
    assert "Type=ocfs2" in text and "data=ordered" in text
    text = (
        text.replace("/dev/drbd0", "tmpfs")
        .replace("Type=ocfs2", "Type=tmpfs")
        .replace("data=ordered,errors=remount-ro,", "")
    )
    node.write("/run/systemd/system/mnt-pve-ha.mount", text)
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "start", "mnt-pve-ha.mount")
    node.power_off()
    assert [note for note in notes(node) if "mounted" in note] == ["mounted", "not mounted"]


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_nobody_takes_all_down_by_accident(node: BootedMachine, verb: str) -> None:
    node.boot()
    refused = node.run("systemctl", verb, "pvedrbdstor-mirrors.service", check=False)
    assert refused.returncode != 0
    assert f"begin {DOWN}" not in notes(node)


def test_neither_upgrade_nor_removal_takes_anything_down(booted: BootedMachine, newer_package: Path) -> None:
    booted.write("/usr/local/bin/note", NOTE)
    booted.run("chmod", "755", "/usr/local/bin/note")
    drop_in = "[Service]\nExecStart=/usr/local/bin/note up\nExecStop=/usr/local/bin/note down\n"
    for name in ("mirrors", "boot"):
        booted.write(f"/etc/systemd/system/pvedrbdstor-{name}.service.d/note.conf", drop_in)
    booted.run("systemctl", "daemon-reload")
    is_active = ["systemctl", "is-active", "pvedrbdstor-mirrors.service"]
    assert booted.run(*is_active).stdout.strip() == "active"  # since the installation
    booted.run("dpkg", "--install", booted.copy_in(newer_package))
    assert booted.run(*is_active).stdout.strip() == "active"
    booted.run("apt-get", "remove", "--yes", "pvedrbdstor")
    assert booted.run("test", "-e", NOTES, check=False).returncode == 1
