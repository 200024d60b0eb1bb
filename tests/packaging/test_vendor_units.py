"""The start scripts of Debian's real drbd-utils and ocfs2-tools: out of the way while there is a storage, back afterwards.

Each is made to note its call and do nothing else; their units, systemd's generator and their packages' scripts are real.
"""

from __future__ import annotations

import time

import pytest

from tests.packaging.machine import BootedMachine, Machine

NOTES = "/root/notes"
SCRIPTS = {"drbd": "/lib/drbd/scripts/drbd", "o2cb": "/etc/init.d/o2cb", "ocfs2": "/etc/init.d/ocfs2"}
STORAGE_CFG = "/etc/pve/storage.cfg"
OURS = "drbdocfs2: ha\n\tpath /mnt/pve/ha\n\tdrbdocfs2-resource r0\n"
EACH = sorted(SCRIPTS)


@pytest.fixture
def node(booted: BootedMachine) -> BootedMachine:
    """A running node where all three of them were started."""
    for name, script in SCRIPTS.items():
        booted.run("sed", "-i", f'1a echo "{name} $1" >>{NOTES}; exit 0', script)
    booted.run("systemctl", "enable", "drbd.service")
    # what the boot says of storages that are not really there is not what these tests are about
    booted.run("systemctl", "disable", "pvedrbdstor-boot.service")
    booted.power_off()
    booted.shell(f"rm -f {NOTES}")
    booted.boot()
    assert calls(booted, "start") == EACH
    return booted


def calls(machine: Machine, verb: str) -> list[str]:
    """The scripts that were called with a verb since the notes were last thrown away."""
    lines = machine.shell(f"cat {NOTES} || true").splitlines()
    return sorted({line.split()[0] for line in lines if line.endswith(f" {verb}")})


def masked(machine: Machine) -> list[str]:
    return [name for name in EACH if machine.shell(f"systemctl is-enabled {name}.service || true") == "masked"]


def test_without_a_storage_they_work_as_always(node: BootedMachine) -> None:
    """What the tests below guard against is real: this is the stop that kills guests."""
    node.run("pvedrbdstor", "vendor-units", "follow")
    node.power_off()
    assert calls(node, "stop") == EACH


def test_with_a_storage_they_stop_nothing_and_start_nothing(node: BootedMachine) -> None:
    """Also those that had been started before there was a storage."""
    node.write(STORAGE_CFG, OURS)
    node.run("pvedrbdstor", "vendor-units", "follow")
    assert masked(node) == EACH
    node.shell(f"rm -f {NOTES}")
    node.power_off()
    node.boot()
    assert calls(node, "stop") == calls(node, "start") == []


def test_the_boot_masks_them_where_nobody_did_yet(node: BootedMachine) -> None:
    node.write(STORAGE_CFG, OURS)
    node.power_off()
    node.boot()
    assert masked(node) == EACH
    node.shell(f"rm -f {NOTES}")
    node.power_off()
    assert calls(node, "stop") == []


def test_they_are_back_at_the_boot_after_the_last_storage_went(node: BootedMachine) -> None:
    node.write(STORAGE_CFG, OURS)
    node.run("pvedrbdstor", "vendor-units", "follow")
    node.write(STORAGE_CFG, OURS + "\tnodes another\n")
    node.power_off()
    node.boot()
    assert masked(node) == []


def test_the_running_service_sees_the_first_storage_come_and_the_last_one_go(node: BootedMachine) -> None:
    """Whoever in the cluster added or removed it; the service itself may not write to /etc."""
    node.write(STORAGE_CFG, "")
    node.run("systemctl", "start", "pvedrbdstor.service")
    for text, wanted in ((OURS, EACH), (OURS + "\nnodes b\n", EACH), ("", []), (OURS, EACH)):
        node.write(STORAGE_CFG, text)
        deadline = time.monotonic() + 20
        while masked(node) != wanted:
            assert time.monotonic() < deadline, node.shell("journalctl --no-pager --lines 30")
            time.sleep(0.3)


def test_an_upgrade_of_their_packages_leaves_them_masked_and_starts_nothing(node: BootedMachine) -> None:
    node.write(STORAGE_CFG, OURS)
    node.run("pvedrbdstor", "vendor-units", "follow")
    node.shell(f"rm -f {NOTES}")
    for package in ("drbd-utils", "ocfs2-tools"):
        version = node.shell(f"dpkg-query --show --showformat '${{Version}}' {package}")
        script = f"/var/lib/dpkg/info/{package}"
        node.shell(
            f"[ ! -e {script}.prerm ] || {script}.prerm upgrade {version}; {script}.postinst configure {version}"
        )
    assert masked(node) == EACH
    assert calls(node, "start") == calls(node, "stop") == []


def test_removal_gives_back_what_was_taken_and_nothing_else(node: BootedMachine) -> None:
    node.run("systemctl", "mask", "drbd.service")  # the administrator's own decision
    node.write(STORAGE_CFG, OURS)
    node.run("pvedrbdstor", "vendor-units", "follow")
    assert masked(node) == EACH
    node.write(STORAGE_CFG, "")
    node.run("apt-get", "remove", "--yes", "pvedrbdstor")
    assert masked(node) == ["drbd"]
    node.run("apt-get", "purge", "--yes", "pvedrbdstor")
    assert node.run("test", "-e", "/var/lib/pvedrbdstor", check=False).returncode == 1


def test_an_upgrade_of_ours_gives_nothing_back(installed: Machine) -> None:
    installed.run("pvedrbdstor", "vendor-units", "mask")
    for action in ("upgrade", "deconfigure", "failed-upgrade"):
        installed.run("sh", "/var/lib/dpkg/info/pvedrbdstor.prerm", action, "99")
    assert masked(installed) == EACH


def test_without_a_running_systemd_they_are_masked_and_given_back_too(installed: Machine) -> None:
    """As in a chroot or a rescue system."""
    installed.run("pvedrbdstor", "vendor-units", "mask")
    assert masked(installed) == EACH
    installed.run("apt-get", "remove", "--yes", "pvedrbdstor")
    assert masked(installed) == []


def test_removal_goes_on_and_says_what_to_do_when_they_cannot_be_given_back(installed: Machine) -> None:
    installed.run("pvedrbdstor", "vendor-units", "mask")
    installed.shell("printf '#!/bin/sh\\nexit 1\\n' >/usr/bin/pvedrbdstor")
    said = installed.run("apt-get", "remove", "--yes", "pvedrbdstor").stdout
    assert "systemctl unmask" in said
