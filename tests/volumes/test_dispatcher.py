"""Every method of the wire on real images: what it answers, and that whatever fails is one of our errors with advice."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pvedrbdstor import native
from pvedrbdstor.call import Call
from pvedrbdstor.errors import (
    BadSize,
    CommandFailed,
    Error,
    NoReflink,
    NotMounted,
    ReadOnlyStorage,
    StorageFull,
    SystemCallFailed,
)
from pvedrbdstor.service.methods import METHODS, STREAM_METHODS, Dispatcher
from pvedrbdstor.service.protocol import InvalidParams, MethodNotFound
from pvedrbdstor.volumes import failures
from tests.backend_any_folder import any_folder
from tests.examples import examples
from tests.volumes.support import MIB, Area

RAW = "100/vm-100-disk-0.raw"


def storage(area: Area) -> dict[str, object]:
    return {"id": "ha", "path": str(area.folder), "resource": "r0"}


def ask(area: Area, method: str, stream: int | None = None, dispatcher: Dispatcher | None = None, **params: Any) -> Any:
    """Dispatch one call with JSON's own values on both ways."""
    call = Call(method, "ha")
    asked = json.loads(json.dumps({"storage": storage(area), **params}))
    try:
        result = (dispatcher or any_folder()).dispatch(method, asked, call, stream)
    finally:
        call.run_after()
    return json.loads(json.dumps(result))


# Each step of one image's life: the method, its parameters, what it answers (or a check of that).
LIFE: list[tuple[str, dict[str, object], object]] = [
    ("activate_storage", {"content_dirs": ["images", "dump", "template/iso"]}, None),
    ("status", {}, lambda r: r["active"] and 0 < r["avail"] <= r["total"] and r["used"] > 0),
    ("alloc_image", {"vmid": 100, "format": "raw", "name": None, "size_kib": 1024}, RAW),
    (
        "alloc_image",
        {"vmid": "100", "format": "qcow2", "name": "vm-100-x.qcow2", "size_kib": 1024},
        "100/vm-100-x.qcow2",
    ),
    ("list_images", {}, lambda r: [entry["volid"] for entry in r] == [f"ha:{RAW}", "ha:100/vm-100-x.qcow2"]),
    ("list_images", {"vmid": 200, "volids": None}, []),
    ("list_images", {"vmid": None, "volids": [f"ha:{RAW}"]}, lambda r: len(r) == 1),
    ("volume_size_info", {"volname": RAW}, lambda r: (r["size"], r["format"], r["parent"]) == (MIB, "raw", None)),
    ("activate_volume", {"volname": RAW, "snap": None}, None),
    ("volume_snapshot", {"volname": RAW, "snap": "one"}, None),
    ("activate_volume", {"volname": RAW, "snap": "one"}, None),
    ("survey", {}, {"snapshots": [f"{RAW}: one"], "chains": [], "subvolumes": [], "interrupted": 0}),
    ("space", {}, lambda r: [guest["vmid"] for guest in r["guests"]] == [100] and r["used"] <= r["total"]),
    ("volume_snapshot_info", {"volname": RAW}, lambda r: r["one"]["virtual-size"] == MIB),
    ("volume_resize", {"volname": RAW, "size": 2 * MIB}, None),
    ("volume_rollback_is_possible", {"volname": RAW, "snap": "one"}, True),
    ("volume_snapshot_rollback", {"volname": RAW, "snap": "one"}, None),
    ("volume_size_info", {"volname": RAW}, lambda r: r["size"] == MIB),
    ("clone_image", {"volname": RAW, "vmid": 200, "snap": "one"}, "200/vm-200-disk-0.raw"),
    ("volume_snapshot_delete", {"volname": RAW, "snap": "one"}, None),
    ("rename_volume", {"volname": RAW, "target_vmid": 300, "target_name": None}, "300/vm-300-disk-0.raw"),
    ("create_base", {"volname": "300/vm-300-disk-0.raw"}, "300/base-300-disk-0.raw"),
    ("clone_image", {"volname": "300/base-300-disk-0.raw", "vmid": 400, "snap": None}, "400/vm-400-disk-0.raw"),
    ("free_image", {"volname": "300/base-300-disk-0.raw", "is_base": True}, True),
    ("free_image", {"volname": "400/vm-400-disk-0.raw", "is_base": 0}, True),
    ("recover", {}, {"removed": 0, "finished": 0, "undone": 0, "failed": 0}),
    ("deactivate_storage", {}, None),
]


def test_every_step_of_an_images_life_is_answered(area: Area) -> None:
    for method, params, expected in LIFE:
        answer = ask(area, method, **params)
        assert expected(answer) if callable(expected) else answer == expected, (method, params, answer)
    assert {method for method, _, _ in LIFE} == set(METHODS) - {"get_identity"}


def test_the_identity_is_that_of_a_mount(area: Area) -> None:
    with pytest.raises(NotMounted):
        ask(area, "get_identity")


def test_an_image_goes_through_a_stream_and_back(area: Area) -> None:
    area.write(area.alloc(), b"contents")
    stream = os.memfd_create("stream")
    ask(area, "volume_export", stream, volname=RAW, format="raw+size", snap=None, with_snapshots=False)
    os.lseek(stream, 0, os.SEEK_SET)
    target = {"volname": RAW, "format": "raw+size", "with_snapshots": 0, "allow_rename": 1}
    assert ask(area, "volume_import", stream, **target) == "100/vm-100-disk-1.raw"
    os.close(stream)
    assert area.read("100/vm-100-disk-1.raw", 8) == b"contents"


@pytest.mark.parametrize("method", STREAM_METHODS)
def test_a_method_with_a_stream_needs_one(area: Area, method: str) -> None:
    with pytest.raises(InvalidParams, match="stream"):
        ask(area, method, volname=RAW, format="raw+size")


@pytest.mark.parametrize("method", ["", "eval", "Status", "__class__"])
def test_an_unknown_method_is_named(area: Area, method: str) -> None:
    with pytest.raises(MethodNotFound, match=method):
        ask(area, method)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
LIKELY = st.sampled_from(
    [RAW, "100/base-1.raw", "raw", "qcow2", "raw+size", 100, "one", "../x", "\ud800", 1 << 70, "a\0b"]
)
NAMES = [
    *(
        "volname",
        "vmid",
        "format",
        "name",
        "size_kib",
        "size",
        "snap",
        "volids",
        "target_vmid",
        "target_name",
        "is_base",
    ),
    *("content_dirs", "with_snapshots", "allow_rename"),
]


@given(
    method=st.sampled_from(sorted({*METHODS, *STREAM_METHODS})),
    params=st.dictionaries(st.sampled_from(NAMES), JSON | LIKELY, max_size=8),
)
@settings(
    max_examples=examples(150),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_the_parameters_are_the_answer_is_a_result_or_an_error_of_ours(
    area: Area, method: str, params: Mapping[str, object]
) -> None:
    stream = os.memfd_create("stream")
    try:
        ask(area, method, stream, **params)
    except Error as error:
        assert error.message
    finally:
        os.close(stream)
    assert {path.name for path in area.folder.parent.iterdir()} == {area.folder.name}, "something left the storage"


CHANGES: dict[str, dict[str, object]] = {
    "alloc_image": {"vmid": 100, "format": "raw", "size_kib": 4},
    "clone_image": {"volname": RAW, "vmid": 200},
    "create_base": {"volname": "100/vm-100-x.qcow2"},
    "free_image": {"volname": RAW},
    "rename_volume": {"volname": RAW, "target_vmid": 200},
    "volume_resize": {"volname": RAW, "size": 2 * MIB},
    "volume_snapshot": {"volname": RAW, "snap": "two"},
    "volume_snapshot_rollback": {"volname": RAW, "snap": "one"},
    "volume_snapshot_delete": {"volname": RAW, "snap": "one"},
}
KNOWN = {
    errno.ENOSPC: (StorageFull, "Free space first"),
    errno.EDQUOT: (StorageFull, "Free space first"),
    errno.EROFS: (ReadOnlyStorage, "dmesg"),
    errno.EIO: (SystemCallFailed, "drbdadm status"),
}


@pytest.mark.parametrize("method", CHANGES)
@pytest.mark.parametrize("number", KNOWN, ids=errno.errorcode.get)
def test_a_failure_of_the_disk_is_told_with_advice_and_no_image_is_lost(
    area: Area, monkeypatch: pytest.MonkeyPatch, method: str, number: int
) -> None:
    for name, params, _ in LIFE[:4]:
        ask(area, name, **params)
    ask(area, "volume_snapshot", volname=RAW, snap="one")
    contents = {seen.content for seen in area.view().values()}

    def fail(fd: int, path: str = "") -> None:
        raise OSError(number, os.strerror(number), path)

    error, advice = KNOWN[number]
    with monkeypatch.context() as patched, pytest.raises(error, match=advice):
        patched.setattr(native, "fsync", fail)
        ask(area, method, **CHANGES[method])
    if method != "free_image":
        ask(area, "recover")
        assert contents <= {seen.content for seen in area.view().values()}


@given(
    number=st.sampled_from([0, *errno.errorcode]),
    operation=st.sampled_from(sorted({*METHODS, *STREAM_METHODS})),
    filename=st.none() | st.integers(0, 9) | st.text(max_size=5) | st.binary(max_size=5),
)
def test_every_error_number_becomes_one_of_our_errors(number: int, operation: str, filename: object) -> None:
    told = failures.explain(OSError(number, os.strerror(number), filename), Area(Path("/mnt/pve/ha")).config, operation)
    assert isinstance(told, Error)
    assert told.message.endswith((".", ")"))


def test_an_error_without_a_number_says_what_it_knows() -> None:
    told = failures.explain(OSError("the disk is on fire"), Area(Path("/mnt/pve/ha")).config, "status")
    assert "on fire" in told.message
    assert "Success" not in told.message


@pytest.mark.parametrize("method", ["volume_snapshot", "clone_image"])
def test_a_file_system_without_reflink_is_told_with_the_command_that_helps(tmpfs_dir: Path, method: str) -> None:
    area = Area(tmpfs_dir)
    area.put(f"images/{RAW}", bytes(4096))
    with pytest.raises(NoReflink, match="tunefs"):
        ask(area, method, **CHANGES[method])


def test_a_size_that_the_file_system_cannot_hold_is_a_bad_size(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_big(fd: int, length: int) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(os, "ftruncate", too_big)
    with pytest.raises(BadSize):
        ask(area, "alloc_image", vmid=100, format="raw", size_kib=4)


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_a_full_file_system_is_told_whoever_finds_out(full_dir: Path, fmt: str) -> None:
    area = Area(full_dir)
    params = {"vmid": 100, "format": fmt, "size_kib": 64 << 10}
    with pytest.raises(StorageFull):
        ask(area, "alloc_image", storage={**storage(area), "preallocation": "falloc"}, **params)


def test_a_program_that_fails_for_another_reason_is_quoted(area: Area) -> None:
    volume = area.alloc(fmt="qcow2")
    with area.path(volume).open("r+b") as image:
        image.seek(65536)
        image.write(b"\xff" * 65536)
    with pytest.raises(CommandFailed, match="qemu-img"):
        ask(area, "volume_snapshot", volname=str(volume), snap="one")
