"""A `dir` storage on a mount that was made by hand becomes ours, keeps what is on it, and becomes a `dir` storage again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT, RESOURCE, STORAGE
from tests.lab.node import Node
from tests.lab.storage import call

CONFIG = "/etc/pve/storage.cfg"
FOLDER = f"dir: {STORAGE}\n\tcontent images,rootdir\n\tis_mountpoint yes\n\tpath {MOUNT_POINT}\n\tshared 1\n\n"
# Proxmox's modules are on perl's path where Proxmox is installed; here the stand-ins are, with the file as storage.cfg.
PERL = f"""#!/bin/sh
cd {REPOSITORY}
exec /usr/bin/perl -I perl-shim -I tests/perl/standins -I tests/perl/lib -MStorageCfgFile={CONFIG} "$@"
"""


@pytest.fixture
def node(volumes: Cluster) -> Iterator[Node]:
    """Node a, with the mirror as a `dir` storage; the cluster's file system was mounted by hand."""
    a = volumes.a
    a.run(f"cp {CONFIG} /tmp/storage.cfg; cat >{CONFIG} <<'TEXT'\n{FOLDER}TEXT")
    a.run(f"cat >/usr/sbin/perl <<'TEXT'\n{PERL}TEXT\nchmod 755 /usr/sbin/perl")
    try:
        yield a
    finally:
        a.run(f"rm /usr/sbin/perl; cp /tmp/storage.cfg {CONFIG}")


def config(node: Node) -> str:
    return node.run(f"cat {CONFIG}")


def test_a_folder_is_adopted_used_and_released_with_everything_in_its_place(
    node: Node, volumes: Cluster, vmid: int
) -> None:
    image = f"{MOUNT_POINT}/images/{vmid}/vm-{vmid}-disk-0.raw"
    node.run(f"mkdir -p {MOUNT_POINT}/images/{vmid} && echo made by Proxmox >{image} && truncate -s 1M {image}")
    before = node.run(f"stat -c '%i %s' {image}")

    assert "Nothing was changed." in node.run(f"pvedrbdstor mirror adopt {STORAGE} --dry-run")
    assert config(node).strip() == FOLDER.strip()
    assert "is of type drbdocfs2 now" in node.run(f"pvedrbdstor mirror adopt {STORAGE}")
    adopted = config(node)
    for line in (f"drbdocfs2: {STORAGE}", f"\tdrbdocfs2-resource {RESOURCE}", f"\tdrbdocfs2-uuid {volumes.uuid}"):
        assert line in adopted.splitlines()
    assert "nothing to change" in node.run(f"pvedrbdstor mirror adopt {STORAGE}")

    volid = f"{STORAGE}:{vmid}/vm-{vmid}-disk-0.raw"
    assert [entry["volid"] for entry in call(node, "vdisk_list", STORAGE).value[STORAGE]] == [volid]
    call(node, "volume_snapshot", volid, "before")
    refused = node.sh(f"pvedrbdstor mirror release {STORAGE}")
    assert refused.rc == 75
    assert f"{vmid}/vm-{vmid}-disk-0.raw: before" in refused.out
    assert config(node) == adopted

    call(node, "volume_snapshot_delete", volid, "before")
    node.run(f"pvedrbdstor mirror release {STORAGE}")
    assert config(node).strip() == FOLDER.strip()
    assert node.run(f"stat -c '%i %s' {image}; head -c 15 {image}").startswith(f"{before.strip()}\nmade by Proxmox")


def test_what_is_not_mounted_from_drbd_is_not_adopted(node: Node) -> None:
    node.run(f"sed -i 's!{MOUNT_POINT}!/tmp!' {CONFIG}")
    refused = node.sh(f"pvedrbdstor mirror adopt {STORAGE}")
    assert refused.rc == 75
    assert f"Storage '{STORAGE}' stays of type 'dir'" in refused.out
    assert "\tpath /tmp" in config(node)
