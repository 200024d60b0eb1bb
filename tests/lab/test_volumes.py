"""The whole line on the real cluster: Proxmox's Perl on one node, its effect on the other."""

from __future__ import annotations

import pytest

from tests.lab import storage
from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT, STORAGE
from tests.lab.ops import ops
from tests.lab.storage import PluginError, alloc, call, listing, path

MIB = 1 << 20


def test_storage_is_active_with_the_same_size_on_both_nodes(volumes: Cluster) -> None:
    on_a, on_b = (call(node, "storage_info", STORAGE).value[STORAGE] for node in volumes.nodes)
    assert on_a["active"] == on_b["active"] == 1
    assert on_a["total"] == on_b["total"] > 900 * MIB
    assert 0 < on_a["avail"] <= on_a["total"] - on_a["used"]


def test_identity_is_the_uuid_of_the_file_system(volumes: Cluster) -> None:
    for node in volumes.nodes:
        assert call(node, "get_identity", STORAGE).value == volumes.uuid


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_image_made_on_one_node_is_complete_on_the_other(volumes: Cluster, vmid: int, format: str) -> None:
    volid = alloc(volumes.a, vmid, 64 * MIB, format)
    assert volid == f"{STORAGE}:{vmid}/vm-{vmid}-disk-0.{format}"
    listed = listing(volumes.b, vmid)
    assert list(listed) == [volid]
    assert (listed[volid]["size"], listed[volid]["format"], listed[volid]["vmid"]) == (64 * MIB, format, vmid)
    assert call(volumes.b, "volume_size_info", volid).values[:2] == [64 * MIB, format]
    file = path(volumes.b, volid)
    assert file == f"{MOUNT_POINT}/images/{vmid}/vm-{vmid}-disk-0.{format}"
    assert volumes.b.run(f"stat -c '%a %U %G' {file}").split() == ["640", "root", "root"]
    assert call(volumes.b, "activate_volumes", [volid]).values is not None


def test_raw_snapshot_taken_on_one_node_is_rolled_back_to_on_the_other(volumes: Cluster, vmid: int) -> None:
    a, b = volumes.nodes
    volid = alloc(a, vmid, 32 * MIB)
    file = path(a, volid)
    ops(a, "write_pattern", file, "one", 0, 8 * MIB)
    first = ops(b, "digest", file)
    call(a, "volume_snapshot", volid, "one")
    ops(b, "write_pattern", file, "two", 4 * MIB, 8 * MIB)
    second = ops(a, "digest", file)
    call(b, "volume_snapshot", volid, "two")
    assert second != first
    assert ops(b, "digest", path(b, volid, "one")) == first
    info = call(b, "volume_snapshot_info", volid).value
    assert {name: entry["virtual-size"] for name, entry in info.items()} == {"one": 32 * MIB, "two": 32 * MIB}
    call(b, "volume_snapshot_rollback", volid, "one")
    assert ops(a, "digest", file) == first
    call(a, "volume_snapshot_rollback", volid, "two")
    assert ops(b, "digest", file) == second
    call(a, "volume_snapshot_delete", volid, "one", False)
    assert list(call(b, "volume_snapshot_info", volid).value) == ["two"]


def test_resize_and_rename_take_the_snapshots_along(volumes: Cluster, vmid: int) -> None:
    a, b = volumes.nodes
    volid = alloc(a, vmid, 16 * MIB)
    ops(a, "write_pattern", path(a, volid), "content", 0, MIB)
    content = ops(a, "digest", path(a, volid))
    call(a, "volume_snapshot", volid, "small")
    call(a, "volume_resize", volid, 24 * MIB, False)
    assert call(b, "volume_size_info", volid).values[0] == 24 * MIB
    with pytest.raises(PluginError, match="only grow"):
        call(b, "volume_resize", volid, 16 * MIB, False)
    renamed = call(b, "rename_volume", volid, vmid + 1, None).value
    assert renamed == f"{STORAGE}:{vmid + 1}/vm-{vmid + 1}-disk-0.raw"
    assert list(listing(a, vmid)) == []
    assert ops(a, "digest", path(a, renamed, "small")) == content
    call(a, "vdisk_free", renamed)


def test_clone_of_a_template_is_independent_of_it(volumes: Cluster, vmid: int) -> None:
    a, b = volumes.nodes
    volid = alloc(a, vmid, 16 * MIB)
    ops(a, "write_pattern", path(a, volid), "template", 0, 4 * MIB)
    content = ops(a, "digest", path(a, volid))
    base = call(a, "vdisk_create_base", volid).value
    assert base == f"{STORAGE}:{vmid}/base-{vmid}-disk-0.raw"
    assert volumes.b.sh(f"dd if=/dev/zero of={path(b, base)} bs=4096 count=1 conv=notrunc").rc != 0
    clone = call(b, "vdisk_clone", base, vmid, None).value
    assert ops(a, "digest", path(a, clone)) == content
    ops(b, "write_pattern", path(b, clone), "clone", 0, MIB)
    assert ops(a, "digest", path(a, base)) == content
    call(a, "vdisk_free", base)
    assert ops(b, "digest", path(b, clone)) != content
    assert list(listing(b, vmid)) == [clone]


def test_freed_image_leaves_nothing_and_its_successor_inherits_nothing(volumes: Cluster, vmid: int) -> None:
    a, b = volumes.nodes
    volid = alloc(a, vmid, 16 * MIB)
    ops(a, "write_pattern", path(a, volid), "old", 0, MIB)
    call(a, "volume_snapshot", volid, "old")
    call(b, "vdisk_free", volid)
    assert storage.leftovers(a) == []
    assert alloc(b, vmid, 16 * MIB) == volid
    assert call(a, "volume_snapshot_info", volid).value == {}
    assert ops(a, "read_zeros", path(a, volid)) is True


def test_qcow2_snapshot_and_rollback_across_the_nodes(volumes: Cluster, vmid: int) -> None:
    a, b = volumes.nodes
    volid = alloc(a, vmid, 64 * MIB, "qcow2")
    file = path(a, volid)

    def pattern_is(node_file: str, value: str) -> bool:
        return b.sh(f"qemu-io -r -f qcow2 -c 'read -P {value} 0 1M' {node_file} | grep -q failed").rc != 0

    a.run(f"qemu-io -t none -f qcow2 -c 'write -P 0x11 0 1M' {file}")
    call(a, "volume_snapshot", volid, "one")
    a.run(f"qemu-io -t none -f qcow2 -c 'write -P 0x22 0 1M' {file}")
    assert pattern_is(file, "0x22") and not pattern_is(file, "0x11")
    assert list(call(b, "volume_snapshot_info", volid).value) == ["one"]
    call(b, "volume_snapshot_rollback", volid, "one")
    assert pattern_is(file, "0x11")
    call(a, "volume_snapshot_delete", volid, "one", False)
    assert call(b, "volume_snapshot_info", volid).value == {}
    assert a.run(f"qemu-img check -f qcow2 {file}").startswith("No errors")


@pytest.mark.parametrize("snapshot", [None, "before"])
def test_image_exported_on_one_node_is_imported_on_the_other(volumes: Cluster, vmid: int, snapshot: str | None) -> None:
    """Through the shared folder of each node and this process, as ssh would carry it."""
    a, b = volumes.nodes
    volid = alloc(a, vmid, 16 * MIB)
    ops(a, "write_pattern", path(a, volid), "moved", MIB, 2 * MIB)
    content = ops(a, "digest", path(a, volid))
    call(a, "volume_snapshot", volid, "before")
    if snapshot:
        ops(a, "write_pattern", path(a, volid), "later", 0, MIB)
    a.run(f"{storage.PLUGIN_COMMAND} export {volid} raw+size {snapshot or '-'} >/run/lab/stream; sync /run/lab/stream")
    (a.share / "stream").rename(b.share / "stream")
    target = f"{STORAGE}:{vmid + 1}/vm-{vmid + 1}-disk-0.raw"
    assert b.run(f"{storage.PLUGIN_COMMAND} import {target} raw+size </run/lab/stream 2>&1").split()[-1] == target
    (b.share / "stream").unlink()
    assert ops(a, "digest", path(a, target)) == content
    assert call(a, "volume_size_info", target).values[0] == 16 * MIB
    call(a, "vdisk_free", target)


def test_error_of_the_backend_arrives_in_proxmox_as_one_clear_line(volumes: Cluster, vmid: int) -> None:
    volid = f"{STORAGE}:{vmid}/vm-{vmid}-disk-7.raw"
    for node in volumes.nodes:
        with pytest.raises(PluginError) as raised:
            call(node, "vdisk_clone", volid, vmid)
        assert f"vm-{vmid}-disk-7.raw" in str(raised.value)
        assert "\n" not in str(raised.value)


def test_unmounted_storage_is_inactive_and_nothing_is_written_below_its_path(volumes: Cluster, vmid: int) -> None:
    """On a path of its own that is a plain folder: to unmount the real one would take ten seconds to undo."""
    a = volumes.a
    a.run("cp /etc/pve/storage.cfg /tmp/storage.cfg && mkdir -p /mnt/pve/plain")
    a.run("printf 'drbdocfs2: plain\\n\\tpath /mnt/pve/plain\\n\\tdrbdocfs2-resource r9\\n' >>/etc/pve/storage.cfg")
    try:
        assert call(a, "storage_info", "plain").value["plain"]["active"] == 0
        with pytest.raises(PluginError, match="'plain'"):
            call(a, "vdisk_alloc", "plain", vmid, "raw", None, 4096)
        assert a.run("ls -A /mnt/pve/plain") == ""
    finally:
        a.run("cp /tmp/storage.cfg /etc/pve/storage.cfg; chattr -i /mnt/pve/plain; rmdir /mnt/pve/plain || true")
