"""Read the header and the snapshot table of a qcow2 image, without a process.

The format is QEMU's docs/interop/qcow2.txt; the limits are those of QEMU's block/qcow2.c and block/qcow2-snapshot.c.
Every number in an image may be a lie: what is read, kept and looped over is bounded by constants of this file, and
whatever does not add up is BadImage with one sentence.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass

from pvedrbdstor.errors import BadImage, SystemCallFailed

MAGIC = b"QFI\xfb"
FORMAT = "qcow2"

_FIRST_READ = 4096  # qemu-img puts the extensions and the backing file's name well inside it
_V2_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_V3_FIELDS = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")
_SNAPSHOT = struct.Struct(">QIHHIIQII")

_CLUSTER_BITS = range(9, 22)  # 512 bytes to 2 MiB
_BACKING_NAME_MAX = 1023
_FORMAT_NAME_MAX = 15
_DATA_FILE_NAME_MAX = 1023  # QEMU's limit is the cluster; no path it could open is longer than a backing file's
_EXTENSIONS_MAX = 1024  # QEMU writes at most six; a cluster of 2 MiB has room for 262144 empty ones
_L1_BYTES_MAX = 32 << 20
_REFCOUNT_BYTES_MAX = 8 << 20
_SNAPSHOTS_MAX = 65536
_SNAPSHOT_EXTRA_MAX = 1024
_SNAPSHOT_TABLE_MAX = 4 << 20  # QEMU allows 64 MiB; 4 MiB are 40000 snapshots as it writes them
_SNAPSHOT_WINDOW = 256 << 10  # longer than the longest entry
_OFFSET_MAX = (1 << 63) - 1

_EXTENSION_END = 0
_EXTENSION_BACKING_FORMAT = 0xE2792ACA
_EXTENSION_DATA_FILE = 0x44415441

_DIRTY, _CORRUPT, _EXTERNAL_DATA, _COMPRESSION_TYPE, _EXTENDED_L2 = (1 << bit for bit in range(5))
_KNOWN_INCOMPATIBLE = _DIRTY | _CORRUPT | _EXTERNAL_DATA | _COMPRESSION_TYPE | _EXTENDED_L2
_ENCRYPTIONS = ("", "aes", "luks")


@dataclass(frozen=True, slots=True)
class Header:
    """What the first cluster of a qcow2 image says. size: the guest's disk in bytes. Offsets are in bytes.

    backing_file, backing_format and data_file are the raw bytes, decoded with surrogateescape, up to the first NUL as
    QEMU reads them; None where the image names none. encryption is '', 'aes' or 'luks'.
    """

    version: int
    size: int
    cluster_bits: int
    backing_file: str | None
    backing_format: str | None
    data_file: str | None
    incompatible_features: int
    encryption: str
    l1_size: int
    l1_offset: int
    snapshot_count: int
    snapshots_offset: int

    @property
    def cluster_size(self) -> int:
        """Bytes in a cluster."""
        return 1 << self.cluster_bits

    @property
    def encrypted(self) -> bool:
        return self.encryption != ""

    @property
    def external_data(self) -> bool:
        """The guest's data lies in another file."""
        return bool(self.incompatible_features & _EXTERNAL_DATA)

    @property
    def corrupt(self) -> bool:
        """QEMU found inconsistent metadata and opens the image only for reading."""
        return bool(self.incompatible_features & _CORRUPT)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An internal snapshot. timestamp: seconds since 1970. virtual_size, vm_state_size: bytes."""

    id: str
    name: str
    timestamp: int
    virtual_size: int
    vm_state_size: int


class _NeedsMore(Exception):
    """The header goes on beyond the bytes at hand."""


def is_qcow2(data: bytes) -> bool:
    """Whether a file that begins with `data` claims to be qcow2 at all; it may still be a broken one."""
    return data[:4] == MAGIC


def read_header(fd: int, volume: str) -> Header:
    """The header of the open image: one pread for images as qemu-img makes them, two at most.

    `volume` names the image in errors. Raises BadImage, also where the file ends before its own L1 table, and
    SystemCallFailed when the file cannot be read.
    """
    data = _pread(fd, _FIRST_READ, 0, volume)
    try:
        header = _parse(data, volume)
    except _NeedsMore:
        header = parse_header(_pread(fd, 1 << _CLUSTER_BITS[-1], 0, volume), volume)
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and header.l1_offset + header.l1_size * 8 > status.st_size:
        raise _bad(volume, f"the file is cut short: its {status.st_size} bytes end before its L1 table")
    return header


def parse_header(data: bytes, volume: str = "image") -> Header:
    """The header in `data`, the first bytes of an image (its whole first cluster always suffices). Raises BadImage."""
    try:
        return _parse(data, volume)
    except _NeedsMore:
        raise _bad(volume, "the file is cut short inside its header") from None


def read_snapshots(fd: int, header: Header, volume: str) -> list[Snapshot]:
    """The snapshot table of the open image, in its own order. Raises BadImage, and SystemCallFailed."""
    snapshots: list[Snapshot] = []
    window, start = b"", header.snapshots_offset
    position = start
    for _ in range(header.snapshot_count):
        entry = _entry(window, position - start, header.size, volume)
        if entry is None:
            window, start = _pread(fd, _SNAPSHOT_WINDOW, position, volume), position
            entry = _entry(window, 0, header.size, volume)
        if entry is None:
            raise _bad(volume, "the file is cut short inside its snapshot table")
        snapshot, length = entry
        snapshots.append(snapshot)
        position += length
        if position - header.snapshots_offset > _SNAPSHOT_TABLE_MAX:
            raise _bad(volume, f"the snapshot table is larger than {_SNAPSHOT_TABLE_MAX >> 20} MiB")
    return snapshots


def _parse(data: bytes, volume: str) -> Header:
    if not is_qcow2(data):
        raise _bad(volume, "it does not begin with the qcow2 magic number")
    if len(data) < _V2_HEADER.size:
        raise _NeedsMore
    (
        _,
        version,
        backing_offset,
        backing_length,
        cluster_bits,
        size,
        encryption,
        l1_size,
        l1_offset,
        refcount_offset,
        refcount_clusters,
        snapshot_count,
        snapshots_offset,
    ) = _V2_HEADER.unpack_from(data)
    if version not in (2, 3):
        raise _bad(volume, f"version {version} is not one of 2 and 3")
    if cluster_bits not in _CLUSTER_BITS:
        raise _bad(volume, f"its clusters are of 2^{cluster_bits} bytes; 2^9 to 2^21 are possible")
    if encryption >= len(_ENCRYPTIONS):
        raise _bad(volume, f"encryption method {encryption} is unknown")
    incompatible, header_length = _version_3_fields(data, cluster_bits, volume) if version == 3 else (0, 72)
    cluster_size = 1 << cluster_bits
    if backing_offset > cluster_size:
        raise _bad(volume, "the name of its backing file lies outside the first cluster")
    if backing_offset and backing_length > min(_BACKING_NAME_MAX, cluster_size - backing_offset):
        raise _bad(volume, f"the name of its backing file is too long ({backing_length} bytes)")
    _check_table(volume, "L1 table", l1_offset, l1_size * 8, _L1_BYTES_MAX, cluster_size)
    l2_entries = cluster_size // (16 if incompatible & _EXTENDED_L2 else 8)
    if -(-size // (cluster_size * l2_entries)) > l1_size:
        raise _bad(volume, f"its L1 table of {l1_size} entries is too small for a disk of {size} bytes")
    if refcount_clusters == 0:
        raise _bad(volume, "it has no reference counts")
    refcount_bytes = refcount_clusters * cluster_size
    _check_table(volume, "refcount table", refcount_offset, refcount_bytes, _REFCOUNT_BYTES_MAX, cluster_size)
    snapshot_bytes, most = snapshot_count * _SNAPSHOT.size, _SNAPSHOTS_MAX * _SNAPSHOT.size
    _check_table(volume, "snapshot table", snapshots_offset, snapshot_bytes, most, cluster_size)
    extensions = _extensions(data, header_length, backing_offset or cluster_size, volume)
    return Header(
        version=version,
        size=size,
        cluster_bits=cluster_bits,
        backing_file=_name(_slice(data, backing_offset, backing_length)) if backing_offset else None,
        backing_format=extensions.get(_EXTENSION_BACKING_FORMAT),
        data_file=extensions.get(_EXTENSION_DATA_FILE),
        incompatible_features=incompatible,
        encryption=_ENCRYPTIONS[encryption],
        l1_size=l1_size,
        l1_offset=l1_offset,
        snapshot_count=snapshot_count,
        snapshots_offset=snapshots_offset,
    )


def _version_3_fields(data: bytes, cluster_bits: int, volume: str) -> tuple[int, int]:
    """(incompatible features, length of the header in bytes) of a version 3 header."""
    if len(data) < _V2_HEADER.size + _V3_FIELDS.size:
        raise _NeedsMore
    incompatible, _, _, refcount_order, header_length = _V3_FIELDS.unpack_from(data, _V2_HEADER.size)
    if incompatible & ~_KNOWN_INCOMPATIBLE:
        raise _bad(volume, f"it needs features that are unknown here (0x{incompatible & ~_KNOWN_INCOMPATIBLE:x})")
    if refcount_order > 6:
        raise _bad(volume, f"its reference counts are of 2^{refcount_order} bits; at most 2^6 are possible")
    if not _V2_HEADER.size + _V3_FIELDS.size <= header_length <= 1 << cluster_bits:
        raise _bad(volume, f"its header claims a length of {header_length} bytes")
    return incompatible, header_length


def _check_table(volume: str, what: str, offset: int, length: int, limit: int, cluster_size: int) -> None:
    """As QEMU's qcow2_validate_table()."""
    if length > limit:
        raise _bad(volume, f"its {what} claims {length} bytes; {limit} are possible")
    if offset % cluster_size or offset > _OFFSET_MAX - length:
        raise _bad(volume, f"its {what} cannot lie at offset {offset}")


def _extensions(data: bytes, offset: int, end: int, volume: str) -> dict[int, str | None]:
    """The header extensions that carry a name, by their type. QEMU skips those it does not know, as we do."""
    limits = {_EXTENSION_BACKING_FORMAT: _FORMAT_NAME_MAX, _EXTENSION_DATA_FILE: _DATA_FILE_NAME_MAX}
    found: dict[int, str | None] = {}
    for _ in range(_EXTENSIONS_MAX):
        if offset + _EXTENSION.size > end:
            return found
        kind, length = _EXTENSION.unpack(_slice(data, offset, _EXTENSION.size))
        offset += _EXTENSION.size
        if kind == _EXTENSION_END:
            return found
        if length > end - offset:
            raise _bad(volume, f"header extension 0x{kind:x} is larger than the header")
        if kind in limits:
            if length > limits[kind]:
                raise _bad(volume, f"header extension 0x{kind:x} is too long ({length} bytes)")
            found[kind] = _name(_slice(data, offset, length))
        offset += (length + 7) & ~7
    raise _bad(volume, f"it has more than {_EXTENSIONS_MAX} header extensions")


def _entry(window: bytes, at: int, disk_size: int, volume: str) -> tuple[Snapshot, int] | None:
    """(the snapshot at `at`, bytes its entry takes), or None where the window ends before the entry does."""
    if at + _SNAPSHOT.size > len(window):
        return None
    _, _, id_length, name_length, seconds, _, _, state_size, extra = _SNAPSHOT.unpack_from(window, at)
    if extra > _SNAPSHOT_EXTRA_MAX:
        raise _bad(volume, f"a snapshot has {extra} bytes of extra data; {_SNAPSHOT_EXTRA_MAX} are possible")
    extra_at = at + _SNAPSHOT.size
    id_at = extra_at + extra
    name_at = id_at + id_length
    end = name_at + name_length
    if end > len(window):
        return None
    if extra >= 8:
        state_size = int.from_bytes(window[extra_at : extra_at + 8], "big")
    if extra >= 16:
        disk_size = int.from_bytes(window[extra_at + 8 : extra_at + 16], "big")
    snapshot = Snapshot(
        id=_name(window[id_at:name_at]) or "",
        name=_name(window[name_at:end]) or "",
        timestamp=seconds,
        virtual_size=disk_size,
        vm_state_size=state_size,
    )
    return snapshot, (end - at + 7) & ~7


def _slice(data: bytes, offset: int, length: int) -> bytes:
    if offset + length > len(data):
        raise _NeedsMore
    return data[offset : offset + length]


def _name(raw: bytes) -> str | None:
    """A name as QEMU's C strings have it: up to the first NUL, None when empty."""
    return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape") or None


def _pread(fd: int, length: int, offset: int, volume: str) -> bytes:
    try:
        return os.pread(fd, length, min(offset, _OFFSET_MAX - length))
    except OSError as error:
        raise SystemCallFailed(
            operation="Reading",
            path=f"'{volume}'",
            reason=error.strerror,
            remedy="Look at 'dmesg' for errors of the disk or the file system",
        ) from error


def _bad(volume: str, detail: str) -> BadImage:
    return BadImage(volume=volume, format=FORMAT, detail=detail)
