"""Which guests have a volume: every place of a configuration that can name one, and no place that cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.pve import guests
from pvedrbdstor.pve.guests import Sought, describe, find_references, references_in

VOLNAME = "100/vm-100-disk-0.raw"
PATH = "/mnt/pve/ha/images/100/vm-100-disk-0.raw"
SOUGHT = Sought(frozenset({"ha", "former"}), VOLNAME, PATH)

VM = """\
#former disk: ha:100/vm-100-disk-0.raw
boot: order=scsi0
description: was ha:100/vm-100-disk-0.raw
name: web
scsi0: ha:100/vm-100-disk-0.raw,iothread=1,size=32G
scsi1: ha:100/vm-100-disk-1.raw,size=32G
vmgenid: 11111111-2222-3333-4444-555555555555

[PENDING]
delete: scsi1
scsi2: file=ha:100/vm-100-disk-0.raw

[before]
scsi0: ha:100/vm-100-disk-0.raw,size=16G
snaptime: 1700000000
vmstate: ha:100/vm-100-state-before.raw

[special:cloudinit]
ide2: ha:100/vm-100-cloudinit.qcow2,media=cdrom
"""


def _put(nodes: Path, node: str, folder: str, vmid: object, text: str) -> Path:
    path = nodes / node / folder
    path.mkdir(parents=True, exist_ok=True)
    (path / f"{vmid}.conf").write_text(text)
    return path / f"{vmid}.conf"


def test_every_section_that_names_the_volume_is_found_and_comments_are_not() -> None:
    assert references_in(SOUGHT, VM) == [(None, "scsi0"), ("PENDING", "scsi2"), ("before", "scsi0")]


@pytest.mark.parametrize(
    "line",
    [
        "scsi0: ha:100/vm-100-disk-0.raw",
        "scsi0: ha:100/vm-100-disk-0.raw,size=1G",
        "scsi0: size=1G,file=ha:100/vm-100-disk-0.raw",
        "scsi0:ha:100/vm-100-disk-0.raw\t",
        "rootfs: ha:100/vm-100-disk-0.raw,size=8G",
        "mp12: volume=ha:100/vm-100-disk-0.raw,mp=/srv",
        "unused0: ha:100/vm-100-disk-0.raw",
        "vmstate: ha:100/vm-100-disk-0.raw",
        "fleecing-images: ha:100/other.raw;ha:100/vm-100-disk-0.raw",
        "scsi0: former:100/vm-100-disk-0.raw",
        "scsi0: ha:9/base-9-disk-0.raw/100/vm-100-disk-0.raw",
        f"scsi0: {PATH},size=1G",
        f"args: -drive if=none,file={PATH} -device x",
    ],
)
def test_line_that_names_the_volume_is_found(line: str) -> None:
    assert references_in(SOUGHT, line) == [(None, line.partition(":")[0])]


@pytest.mark.parametrize(
    "line",
    [
        "scsi0: ha:100/vm-100-disk-0.raw2",
        "scsi0: ha:100/vm-100-disk-0",
        "scsi0: ha2:100/vm-100-disk-0.raw",
        "scsi0: ha:1100/vm-100-disk-0.raw",
        "scsi0: xha:100/vm-100-disk-0.raw",
        "scsi0: local:100/vm-100-disk-0.raw",
        f"scsi0: {PATH}.old",
        "# scsi0: ha:100/vm-100-disk-0.raw",
        "description: ha:100/vm-100-disk-0.raw",
        "ha:100/vm-100-disk-0.raw",
        "",
    ],
)
def test_line_that_names_something_else_is_not(line: str) -> None:
    assert references_in(SOUGHT, line) == []


def test_linked_clone_is_found_by_its_short_name_and_by_its_long_one() -> None:
    line = "scsi0: ha:9/base-9-disk-0.qcow2/100/vm-100-disk-0.qcow2"
    for volname in ("100/vm-100-disk-0.qcow2", "9/base-9-disk-0.qcow2/100/vm-100-disk-0.qcow2"):
        assert references_in(Sought(frozenset({"ha"}), volname), line) == [(None, "scsi0")]


def test_guests_of_all_nodes_and_both_kinds_are_looked_at(tmp_path: Path) -> None:
    _put(tmp_path, "b", "qemu-server", 100, VM)
    _put(tmp_path, "a", "lxc", 200, "rootfs: ha:100/vm-100-disk-0.raw\nmp0: ha:100/vm-100-disk-0.raw,mp=/x\n")
    _put(tmp_path, "a", "qemu-server", 300, "scsi0: ha:300/vm-300-disk-0.raw\n")
    _put(tmp_path, "a", "qemu-server", "notes", "scsi0: ha:100/vm-100-disk-0.raw\n")
    (tmp_path / "c").mkdir()
    (tmp_path / "stray").write_text("")
    assert describe(find_references(SOUGHT, str(tmp_path))) == (
        "VM 100 (scsi0, scsi2 in pending changes, scsi0 in snapshot 'before'), CT 200 (rootfs, mp0)"
    )


def test_volume_no_guest_has_is_free(tmp_path: Path) -> None:
    _put(tmp_path, "a", "qemu-server", 300, "scsi0: ha:300/vm-300-disk-0.raw\n")
    assert find_references(SOUGHT, str(tmp_path)) == []


def test_missing_folder_of_nodes_is_an_error_and_not_an_empty_cluster(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find_references(SOUGHT, str(tmp_path / "nodes"))


def test_unreadable_configuration_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a" / "qemu-server" / "100.conf").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        find_references(SOUGHT, str(tmp_path))


def test_guest_that_migrates_meanwhile_is_found_on_its_new_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = _put(tmp_path, "b", "qemu-server", 100, VM)
    (tmp_path / "a" / "qemu-server").mkdir(parents=True)
    listed = guests.configurations

    def listed_then_migrated(nodes: str) -> list[tuple[int, str, str]]:
        files = list(listed(nodes))
        if old.exists():
            old.rename(tmp_path / "a" / "qemu-server" / "100.conf")
        return files

    monkeypatch.setattr(guests, "configurations", listed_then_migrated)
    assert {found.vmid for found in find_references(SOUGHT, str(tmp_path))} == {100}


@given(st.text())
def test_any_text_is_searched_without_failing(text: str) -> None:
    for section, key in references_in(SOUGHT, text):
        assert key
        assert section is None or f"[{section}]" in text


@given(
    st.sampled_from(["scsi0", "rootfs", "mp3", "unused7", "vmstate"]),
    st.lists(st.from_regex(r"[a-z]{1,5}=[a-zA-Z0-9/]{0,8}", fullmatch=True)),
    st.integers(0, 5),
)
def test_volume_is_found_wherever_it_stands_among_the_options(key: str, options: list[str], at: int) -> None:
    words = [*options[:at], "ha:100/vm-100-disk-0.raw", *options[at:]]
    assert references_in(SOUGHT, f"{key}: {','.join(words)}\n") == [(None, key)]
