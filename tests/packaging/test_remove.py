"""Removal is refused while Proxmox would drop storages because of it; upgrades never are; purge leaves nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packaging.conftest import NEWER
from tests.packaging.machine import Machine

OTHERS = "dir: local\n\tpath /var/lib/vz\n\tcontent iso\n\n"
OURS = "drbdocfs2: ha\n\tpath /mnt/pve/ha\n\tdrbdocfs2-resource r0\n\n"
STORAGE_CFG = "/etc/pve/storage.cfg"
CONFIG_DB = "/var/lib/pve-cluster/config.db"  # pmxcfs's database: this is a node of Proxmox VE


def mount_cluster_files(machine: Machine) -> None:
    """A file system on /etc/pve, as pmxcfs has."""
    machine.write(CONFIG_DB, "")
    machine.shell("mkdir -p /etc/pve; mount -t tmpfs pmxcfs-double /etc/pve")


def remove(machine: Machine) -> tuple[bool, str]:
    """Try to remove the package: whether it is gone, and what was said."""
    said = machine.run("apt-get", "remove", "--yes", "pvedrbdstor", check=False).stdout
    status = machine.shell("dpkg-query --show --showformat '${db:Status-Status}' pvedrbdstor || true")
    return status != "installed", said


def works(machine: Machine) -> bool:
    plugin = machine.run("perl", "-T", "-e", "use PVE::Storage::Custom::DRBDOCFS2Plugin", check=False)
    return plugin.returncode == 0 and machine.run("pvedrbdstor", "--version", check=False).returncode == 0


def test_refused_while_a_storage_is_configured_and_says_what_to_do(installed: Machine) -> None:
    mount_cluster_files(installed)
    installed.write(STORAGE_CFG, OTHERS + OURS + OURS.replace("ha", "second"))
    gone, said = remove(installed)
    assert not gone
    assert "ha second of type drbdocfs2" in said
    assert "pvesm remove" in said
    assert works(installed)
    enabled = installed.run("systemctl", "is-enabled", "pvedrbdstor.socket")
    assert enabled.stdout.strip() == "enabled"


def test_refused_while_the_cluster_file_system_is_not_mounted(installed: Machine) -> None:
    installed.write(CONFIG_DB, "")
    installed.write(STORAGE_CFG, OTHERS)  # what lies below the mount point is not the cluster's
    gone, said = remove(installed)
    assert not gone
    assert "not mounted" in said
    assert "pve-cluster" in said


def test_refused_while_the_cluster_files_are_gone_altogether(installed: Machine) -> None:
    installed.write(CONFIG_DB, "")
    gone, said = remove(installed)
    assert not gone
    assert "not mounted" in said


def test_refused_while_the_configuration_cannot_be_read(installed: Machine) -> None:
    mount_cluster_files(installed)
    installed.shell(f"mkdir {STORAGE_CFG}")
    gone, said = remove(installed)
    assert not gone
    assert "cannot be read" in said


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="no storages"),
        pytest.param(OTHERS, id="other storages"),
        pytest.param(f"{OTHERS}# drbdocfs2: ha\n", id="a comment"),
        pytest.param("dir: drbdocfs2\n\tpath /drbdocfs2:\n", id="a storage by that name"),
    ],
)
def test_allowed_on_a_node_without_such_a_storage(installed: Machine, text: str) -> None:
    mount_cluster_files(installed)
    installed.write(STORAGE_CFG, text)
    gone, said = remove(installed)
    assert gone, said


def test_allowed_on_a_node_that_has_no_storage_configuration_yet(installed: Machine) -> None:
    mount_cluster_files(installed)
    gone, said = remove(installed)
    assert gone, said


def test_allowed_where_proxmox_never_ran(installed: Machine) -> None:
    gone, said = remove(installed)
    assert gone, said


def test_the_root_that_dpkg_works_on_is_the_one_looked_at(installed: Machine) -> None:
    """DPKG_ROOT, as `dpkg --root --force-script-chrootless` sets it."""
    installed.write(f"/srv/other{STORAGE_CFG}", OURS)
    script = "/var/lib/dpkg/info/pvedrbdstor.prerm"
    refused = installed.run("env", "DPKG_ROOT=/srv/other", "sh", script, "remove", check=False)
    assert refused.returncode == 1
    assert "/srv/other/etc/pve/storage.cfg" in refused.stdout


@pytest.mark.parametrize("action", ["upgrade", "failed-upgrade", "deconfigure"])
def test_only_removal_is_refused(installed: Machine, action: str) -> None:
    mount_cluster_files(installed)
    installed.write(STORAGE_CFG, OURS)
    installed.run("sh", "/var/lib/dpkg/info/pvedrbdstor.prerm", action, NEWER)


def test_an_upgrade_works_while_a_storage_is_configured(installed: Machine, newer_package: Path) -> None:
    mount_cluster_files(installed)
    installed.write(STORAGE_CFG, OURS)
    installed.run("dpkg", "--install", installed.copy_in(newer_package))
    assert installed.shell("dpkg-query --show --showformat '${Version}' pvedrbdstor") == NEWER
    assert works(installed)
    assert installed.run("systemctl", "is-enabled", "pvedrbdstor.socket").stdout.strip() == "enabled"


def test_removing_and_purging_leaves_nothing(machine: Machine, install: Callable[[Machine], str]) -> None:
    before = machine.files()
    install(machine)
    machine.run("pvedrbdstor", "--version")
    machine.shell("mkdir -p /run/pvedrbdstor; touch /run/pvedrbdstor/backend.sock")
    machine.run("apt-get", "purge", "--yes", "pvedrbdstor")
    left = machine.files() - before
    assert not {path for path in left if "pve-manager-double" not in path}
