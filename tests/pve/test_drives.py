"""How guests use their disks: by what their configurations say, and by what Proxmox does where they say nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvedrbdstor.pve.drives import Drive, drives_in, find_drives

VM = """\
#scsi9: ha:100/vm-100-disk-9.raw
boot: order=scsi0
cores: 2
efidisk0: ha:100/vm-100-disk-4.raw,size=528K
ide2: ha:iso/debian.iso,media=cdrom
name: web
scsi0: ha:100/vm-100-disk-0.raw,iothread=1,size=32G
scsi1: file=ha:100/vm-100-disk-1.raw,cache=writeback,aio=threads
scsi2: local:100/vm-100-disk-2.raw
scsihw: virtio-scsi-single
unused0: ha:100/vm-100-disk-7.raw
virtio0: /mnt/pve/ha/images/100/vm-100-disk-3.raw,aio=native

[PENDING]
scsi1: ha:100/vm-100-disk-1.raw,cache=directsync

[before]
scsi3: ha:100/vm-100-disk-8.raw,cache=unsafe
"""


def test_the_disks_of_a_guest_have_what_they_say_and_proxmoxs_defaults() -> None:
    found = drives_in(VM, 100, "ha", "/mnt/pve/ha")
    assert [(drive.key, drive.cache, drive.aio, drive.pending) for drive in found] == [
        ("scsi0", "none", "io_uring", False),
        ("scsi1", "writeback", "threads", False),
        ("virtio0", "none", "native", False),
        ("scsi1", "directsync", "io_uring", True),
    ]
    assert [drive.direct for drive in found] == [True, False, True, True]


def test_a_template_never_runs() -> None:
    assert drives_in(f"{VM.partition('[PENDING]')[0]}template: 1\n", 100, "ha", "/mnt/pve/ha") == []


def test_a_storage_of_a_similar_name_is_another_one() -> None:
    assert drives_in("scsi0: ha2:100/a.raw\nscsi1: /mnt/pve/ha2/images/a.raw\n", 100, "ha", "/mnt/pve/ha") == []


def test_options_are_changed_and_the_others_kept() -> None:
    drive = Drive(100, "scsi0", "ha:100/a.raw,cache=none,iothread=1", "none", "io_uring")
    assert drive.changed(cache="writeback", aio="threads") == "ha:100/a.raw,iothread=1,cache=writeback,aio=threads"


def test_guests_of_all_nodes_are_found_and_containers_have_no_such_disks(tmp_path: Path) -> None:
    for node, kind, vmid in (("a", "qemu-server", 101), ("b", "qemu-server", 100), ("b", "lxc", 102)):
        folder = tmp_path / node / kind
        folder.mkdir(parents=True)
        (folder / f"{vmid}.conf").write_text(f"scsi0: ha:{vmid}/disk.raw\n")
    assert [drive.vmid for drive in find_drives("ha", "/mnt/pve/ha", str(tmp_path))] == [100, 101]


def test_without_the_cluster_file_system_nothing_is_known(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find_drives("ha", "/mnt/pve/ha", str(tmp_path / "nodes"))


@pytest.mark.parametrize(
    ("aio", "told"), [("io_uring", "x,cache=writeback"), ("native", "x,cache=writeback,aio=io_uring")]
)
def test_a_disk_with_the_page_cache_has_no_native_aio(aio: str, told: str) -> None:
    drive = Drive(100, "scsi0", "x" if aio == "io_uring" else "x,aio=native", "none", aio)
    assert drive.changed(**drive.cached) == told
