"""Images as streams: PVE's raw+size and qcow2+size, an 8 byte little-endian size before the data."""

from __future__ import annotations

import os
import select
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from pvedrbdstor import native
from pvedrbdstor.call import Call
from pvedrbdstor.errors import BadImage, NotSupported, SnapshotMissing, StreamError, VolumeExists
from pvedrbdstor.faultpoints import reach
from pvedrbdstor.volumes import qcow2, qemu_img, snapshot_files
from pvedrbdstor.volumes.chain import refuse_foreign_chain
from pvedrbdstor.volumes.exclusive import exclusive
from pvedrbdstor.volumes.identity import image_id, new_id, set_image_id
from pvedrbdstor.volumes.images import check_capacity, publish_image_locked
from pvedrbdstor.volumes.names import VolumeName, check_new_name, check_size
from pvedrbdstor.volumes.references import refuse_references
from pvedrbdstor.volumes.steps import protect
from pvedrbdstor.volumes.store import Store
from pvedrbdstor.volumes.work import Building, building, intent

RAW, QCOW2 = "raw+size", "qcow2+size"
_SIZE = struct.Struct("<Q")
_CHUNK = 1 << 20
_BLOCK = 64 << 10
_SECTOR = 512
_LOOK = 0.25  # seconds
_ZEROS = bytes(_CHUNK)


def export_image(
    store: Store, call: Call, volume: VolumeName, fmt: str, snap: str | None, with_snapshots: bool, out: int
) -> None:
    """Write a volume, or one of its snapshots, to the descriptor ``out``. Raises NotSupported, StreamError, ..."""
    _check_export(volume, fmt, snap, with_snapshots)
    with store.guest_of(volume) as guest_fd, store.image(guest_fd, volume) as image_fd:
        if fmt == QCOW2:
            header = qcow2.read_header(image_fd, str(volume))
            refuse_references(header, volume)
            with _stream_errors(volume):
                _write_all(out, _SIZE.pack(header.size))
                _send(call, volume, image_fd, os.fstat(image_fd).st_size, out)
        elif volume.format == "qcow2":
            _check_convertible(store, image_fd, volume, snap)
            _send_converted(store, call, guest_fd, volume, snap, out)
        elif snap is not None:
            with snapshot_files.opened(store, guest_fd, volume, snap, image_id(image_fd)) as fd:
                _send_raw(call, volume, fd, out)
        else:
            _send_raw(call, volume, image_fd, out)


def _check_export(volume: VolumeName, fmt: str, snap: str | None, with_snapshots: bool) -> None:
    if fmt == RAW and not with_snapshots and volume.format in ("raw", "qcow2"):
        return
    if fmt == QCOW2 and with_snapshots and volume.format == "qcow2" and snap is None:
        return
    raise NotSupported(
        detail=f"'{volume}' cannot be exported as '{fmt}'. raw+size goes without snapshots, qcow2+size of qcow2 images with them"
    )


def _send_raw(call: Call, volume: VolumeName, fd: int, out: int) -> None:
    """The contents of a raw file, which end with a whole sector as they do for a guest."""
    length = os.fstat(fd).st_size
    rest = -length % _SECTOR
    with _stream_errors(volume):
        _write_all(out, _SIZE.pack(length + rest))
        _send(call, volume, fd, length, out)
        _write_all(out, _ZEROS[:rest])


def _send(call: Call, volume: VolumeName, fd: int, length: int, out: int) -> None:
    """The first ``length`` bytes of the file; its holes are sent as zeros without being read."""
    position = 0
    for offset, extent in native.data_extents(fd, length, str(volume)):
        position = _send_zeros(call, out, position, offset, length)
        while position < offset + extent:
            chunk = os.pread(fd, min(_CHUNK, offset + extent - position), position)
            if not chunk:
                raise StreamError(volume=volume, detail="the image became shorter while it was read")
            _write_all(out, chunk)
            position += len(chunk)
            call.advance(position, length)
    _send_zeros(call, out, position, length, length)


def _send_zeros(call: Call, out: int, position: int, until: int, length: int) -> int:
    while position < until:
        count = min(_CHUNK, until - position)
        _write_all(out, _ZEROS[:count])
        position += count
        call.advance(position, length)
    return position


def _check_convertible(store: Store, image_fd: int, volume: VolumeName, snap: str | None) -> None:
    """qemu-img reads whatever file the image names. Raises BadImage, SnapshotMissing."""
    refuse_foreign_chain(store, volume, image_fd)
    header = qcow2.read_header(image_fd, str(volume))
    if snap is not None and all(s.name != snap for s in qcow2.read_snapshots(image_fd, header, str(volume))):
        raise SnapshotMissing(volume=volume, snapshot=snap, storage=store.config.id)


def _send_converted(store: Store, call: Call, guest_fd: int, volume: VolumeName, snap: str | None, out: int) -> None:
    """qemu-img cannot write raw data into a pipe, so the contents take a detour over a sparse file in work/."""
    with building(store, volume.vmid) as item:
        target = f"/proc/{os.getpid()}/fd/{item.fd}"
        qemu_img.convert_to_raw(guest_fd, volume.name, target, snap, call)
        _send_raw(call, volume, item.fd, out)
        item.discard()


def import_image(
    store: Store, call: Call, volume: VolumeName, fmt: str, with_snapshots: bool, allow_rename: bool, source: int
) -> VolumeName:
    """Make a volume from a stream. Nothing is visible before the whole stream has arrived and was checked.

    Raises VolumeExists unless ``allow_rename``, StreamError, BadImage, StorageFull.
    """
    _check_import(volume, fmt, with_snapshots)
    check_new_name(volume.name, volume.vmid, volume.format, base=True)
    name: str | None = volume.name
    if _taken(store, volume):
        if not allow_rename:
            raise VolumeExists(volume=volume, storage=store.config.id)
        name = None
    size = _read_size(call, volume, source)
    check_capacity(store, size)
    with building(store, volume.vmid) as item:
        if fmt == RAW:
            _receive_raw(store, call, volume, item.fd, size, source)
        else:
            _receive_qcow2(call, volume, item.fd, size, source)
            _check_whole(store, call, volume, item)
        reach("import.received")
        try:
            return _publish(store, call, item, volume, name)
        except VolumeExists:
            if not allow_rename:
                raise
        return _publish(store, call, item, volume, None)


def _publish(store: Store, call: Call, item: Building, volume: VolumeName, name: str | None) -> VolumeName:
    """Give the image its name; a template that PVE sends over is one here too, and protected as such."""
    with exclusive(store, call, volume.vmid):
        if name is None or not volume.is_base:
            return publish_image_locked(store, call, item, volume.vmid, volume.format, name)
        plan: dict[str, object] = {"do": "template", "vmid": volume.vmid, "name": name}
        with intent(store, volume.vmid, plan):
            made = publish_image_locked(store, call, item, volume.vmid, volume.format, name)
            reach("import.published")
            with store.guest_of(made) as guest_fd:
                protect(store, guest_fd, made)
        return made


def _check_import(volume: VolumeName, fmt: str, with_snapshots: bool) -> None:
    if (fmt, volume.format, with_snapshots) in ((RAW, "raw", False), (QCOW2, "qcow2", True)):
        return
    raise NotSupported(
        detail=f"A stream of format '{fmt}' cannot become '{volume}'. raw+size makes .raw, qcow2+size with snapshots makes .qcow2"
    )


def _taken(store: Store, volume: VolumeName) -> bool:
    try:
        with store.guest(volume.vmid) as guest_fd:
            os.stat(volume.name, dir_fd=guest_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _read_size(call: Call, volume: VolumeName, source: int) -> int:
    with _stream_errors(volume):
        header = b""
        while len(header) < _SIZE.size:
            piece = _read(call, source, _SIZE.size - len(header))
            if not piece:
                raise StreamError(
                    volume=volume, detail=f"it ended after {len(header)} bytes, before its size was known"
                )
            header += piece
    return check_size(_SIZE.unpack(header)[0])


def _receive_raw(store: Store, call: Call, volume: VolumeName, fd: int, size: int, source: int) -> None:
    if store.config.preallocation in ("falloc", "full"):
        native.fallocate(fd, 0, size, path=str(volume))
    received = _receive(call, volume, fd, source, size)
    if received <= size - _SECTOR:
        raise StreamError(volume=volume, detail=f"it ended after {received} of {size} bytes")
    os.ftruncate(fd, size)
    set_image_id(fd, new_id())


def _receive_qcow2(call: Call, volume: VolumeName, fd: int, size: int, source: int) -> None:
    received = _receive(call, volume, fd, source, None)
    os.ftruncate(fd, received)
    header = qcow2.read_header(fd, str(volume))
    refuse_references(header, volume)
    if header.size != size:
        detail = f"the stream announced a disk of {size} bytes, the image is one of {header.size} bytes"
        raise BadImage(volume=volume, format="qcow2", detail=detail)
    qcow2.read_snapshots(fd, header, str(volume))


def _check_whole(store: Store, call: Call, volume: VolumeName, item: Building) -> None:
    """A qcow2 stream does not say how long it is: cut short, its missing clusters would read as zeros. Raises StreamError."""
    if qcow2.read_header(item.fd, str(volume)).encrypted:
        return  # qemu-img would want the key
    found = qemu_img.damage_in_qcow2(store.work(), item.entry, call)
    if found is not None:
        raise StreamError(volume=volume, detail=f"what arrived is not a whole qcow2 image ({found})")


def _receive(call: Call, volume: VolumeName, fd: int, source: int, limit: int | None) -> int:
    """Store the stream, leaving out blocks of zeros; returns its length in bytes. Raises StreamError beyond ``limit``."""
    position = 0
    with _stream_errors(volume):
        while chunk := _read(call, source, _CHUNK):
            if limit is not None and position + len(chunk) > limit:
                raise StreamError(volume=volume, detail=f"it has more than the {limit} bytes it announced")
            _write_sparse(fd, chunk, position)
            position += len(chunk)
            call.advance(position, limit or position)
    call.check()  # a stream that was cut because the caller has gone looks just like one that has ended
    return position


def _read(call: Call, source: int, length: int) -> bytes:
    """What the stream has, at most ``length`` bytes; a silent sender does not keep us from noticing a caller that has gone."""
    while not select.select([source], [], [], _LOOK)[0]:
        call.check()
    return os.read(source, length)


def _write_sparse(fd: int, chunk: bytes, position: int) -> None:
    view = memoryview(chunk)
    for start in range(0, len(chunk), _BLOCK):
        block = view[start : start + _BLOCK]
        if block != _ZEROS[: len(block)]:
            _pwrite_all(fd, block, position + start)


def _pwrite_all(fd: int, data: memoryview, position: int) -> None:
    while data:
        written = os.pwrite(fd, data, position)
        data, position = data[written:], position + written


def _write_all(out: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]


@contextmanager
def _stream_errors(volume: VolumeName) -> Iterator[None]:
    """A receiver that goes away is the stream's failure, not the storage's."""
    try:
        yield
    except (BrokenPipeError, ConnectionError) as error:
        raise StreamError(volume=volume, detail="the other side closed it") from error
