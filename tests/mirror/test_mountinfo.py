"""Lines of mountinfo: those of a real OCFS2 mount, of this machine, and arbitrary ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.mirror import mountinfo
from pvedrbdstor.mirror.mountinfo import MountEntry

OCFS2 = (
    b"33 24 147:0 / /mnt/o rw,noatime shared:7 master:2 - ocfs2 /dev/drbd0 rw,_netdev,heartbeat=local,nointr,"
    b"data=ordered,errors=remount-ro,atime_quantum=60,localflocks,,cluster_stack=o2cb,coherency=full,user_xattr,acl"
)


def escape(raw: bytes) -> bytes:
    """As mangle() in the kernel's fs/seq_file.c."""
    return b"".join(b"\\%03o" % byte if byte in b" \t\n\\" else bytes([byte]) for byte in raw)


def test_the_line_of_a_real_mount_with_optional_fields() -> None:
    entry = mountinfo.parse_line(OCFS2)
    assert entry is not None
    assert (entry.mnt_id, entry.device, entry.root, entry.mount_point) == (33, (147, 0), "/", "/mnt/o")
    assert (entry.fs_type, entry.source) == ("ocfs2", "/dev/drbd0")
    assert entry.options[0] == "rw"
    assert {"localflocks", "cluster_stack=o2cb", "acl"} <= set(entry.options)
    assert "" not in entry.options


NAMES = st.binary(min_size=1, max_size=30).filter(lambda raw: b"\0" not in raw)


@given(
    mnt_id=st.integers(0, 1 << 31), root=NAMES, point=NAMES, source=NAMES, optional=st.sampled_from([b"", b" shared:1"])
)
def test_names_come_back_whatever_is_in_them(
    mnt_id: int, root: bytes, point: bytes, source: bytes, optional: bytes
) -> None:
    names = [b"/" + name for name in (root, point, source)]
    line = b"%d 1 147:5 %s %s rw%s - ocfs2 %s rw" % (
        mnt_id,
        escape(names[0]),
        escape(names[1]),
        optional,
        escape(names[2]),
    )
    table = b"1 1 0:1 / / rw - tmpfs tmpfs rw\n" * (mnt_id != 1) + line + b"\n12 1 0:2 / /x rw - proc proc rw\n"
    entry = mountinfo.find(table, mnt_id)
    assert entry is not None
    assert [os.fsencode(name) for name in (entry.root, entry.mount_point, entry.source)] == names


@pytest.mark.parametrize(
    ("table", "mnt_id"),
    [
        (b"", 33),
        (OCFS2, 33),  # no newline: cut off
        (OCFS2 + b"\n", 3),
        (OCFS2 + b"\n", 24),
        (b"133 " + OCFS2[3:] + b"\n", 33),
        (b"33 24 147:0 / /mnt/o rw - ocfs2 /dev/drbd0\n", 33),
        (b"33 24 147 / /mnt/o rw - ocfs2 /dev/drbd0 rw\n", 33),
        (b"33 \n", 33),
    ],
)
def test_what_is_not_that_mounts_whole_line_is_none(table: bytes, mnt_id: int) -> None:
    assert mountinfo.find(table, mnt_id) is None


@given(st.binary(max_size=120) | st.text("0123456789 :-/\\rw", max_size=80).map(str.encode))
def test_arbitrary_bytes_give_an_entry_or_none(line: bytes) -> None:
    entry = mountinfo.parse_line(line)
    assert entry is None or isinstance(entry, MountEntry)
    found = mountinfo.find(line, 7)
    assert found is None or found.mnt_id == 7


def test_every_mount_of_this_machine_is_found() -> None:
    table = Path("/proc/self/mountinfo").read_bytes()
    for line in table.splitlines():
        entry = mountinfo.parse_line(line)
        assert entry is not None
        assert mountinfo.find(table, entry.mnt_id) == entry


def test_mount_id_of_an_open_file() -> None:
    fd = os.open("/proc", os.O_RDONLY)
    try:
        mnt_id = mountinfo.mnt_id_of(Path(f"/proc/self/fdinfo/{fd}").read_text())
    finally:
        os.close(fd)
    assert mnt_id is not None
    entry = mountinfo.find(Path("/proc/self/mountinfo").read_bytes(), mnt_id)
    assert entry is not None
    assert (entry.mount_point, entry.fs_type) == ("/proc", "proc")
    assert mountinfo.mnt_id_of("pos:\t0\nflags:\t0100000\n") is None
