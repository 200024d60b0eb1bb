"""pvedrbdstor.native on regular files and folders: allocation, durability, file system, inode flags, errors."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pvedrbdstor import native
from pvedrbdstor.errors import NativeMissing
from tests.loopback import Loopback, fill
from tests.native.conftest import Opener

MIB = 1 << 20


def blocks(fd: int) -> int:
    return os.fstat(fd).st_blocks * 512


def test_fallocate_reserves_blocks_and_grows_the_file(reflink_dir: Path, opened: Opener) -> None:
    fd = opened(reflink_dir / "a")
    native.fallocate(fd, 0, MIB)
    assert os.fstat(fd).st_size == MIB
    assert blocks(fd) >= MIB
    assert os.pread(fd, MIB, 0) == bytes(MIB)


def test_fallocate_keeps_the_size_when_asked(reflink_dir: Path, opened: Opener) -> None:
    fd = opened(reflink_dir / "a")
    os.write(fd, b"x" * 100)
    native.fallocate(fd, 0, MIB, keep_size=True)
    assert os.fstat(fd).st_size == 100
    assert blocks(fd) >= MIB


def test_fallocate_on_a_full_file_system_is_enospc(full_dir: Path, opened: Opener) -> None:
    fd = opened(full_dir / "a")
    with pytest.raises(OSError) as caught:
        native.fallocate(fd, 0, 64 * MIB, path="some/image")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "some/image")
    assert os.fstat(fd).st_size == 0


def test_fallocate_without_a_free_block_is_enospc(small_dir: Path, opened: Opener) -> None:
    fd = opened(small_dir / "a")
    fill(small_dir)
    with pytest.raises(OSError) as caught:
        native.fallocate(fd, 0, 4096)
    assert caught.value.errno == errno.ENOSPC


def test_fallocate_is_never_emulated_by_writing() -> None:
    # A pipe is what Linux can never allocate for; posix_fallocate() would answer with something else.
    reader, writer = os.pipe()
    try:
        with pytest.raises(OSError) as caught:
            native.fallocate(writer, 0, 4096)
        assert caught.value.errno == errno.ESPIPE
    finally:
        os.close(reader)
        os.close(writer)


def test_punch_hole_frees_the_range_and_keeps_the_size(reflink_dir: Path, opened: Opener) -> None:
    fd = opened(reflink_dir / "a")
    os.pwrite(fd, b"x" * MIB, 0)
    os.fsync(fd)
    native.punch_hole(fd, 4096, MIB - 8192)
    assert os.fstat(fd).st_size == MIB
    assert blocks(fd) == 8192
    assert os.pread(fd, MIB, 0) == b"x" * 4096 + bytes(MIB - 8192) + b"x" * 4096


def test_fsync_takes_files_and_folders(reflink_dir: Path, opened: Opener) -> None:
    native.fsync(opened(reflink_dir / "a"))
    native.fdatasync(opened(reflink_dir / "a"))
    folder = os.open(reflink_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        native.fsync(folder)
    finally:
        os.close(folder)


def test_fstatfs_tells_the_file_system(reflink_dir: Path, opened: Opener) -> None:
    fd = opened(reflink_dir / "a")
    # XFS frees what other tests removed in the background: compare with what did not change around the call.
    while True:
        expected, found = os.fstatvfs(fd), native.fstatfs(fd)
        if os.fstatvfs(fd) == expected:
            break
    assert (found.type, found.name) == (native.XFS_SUPER_MAGIC, "XFS")
    assert (found.bsize, found.frsize, found.blocks) == (expected.f_bsize, expected.f_frsize, expected.f_blocks)
    assert (found.bfree, found.bavail) == (expected.f_bfree, expected.f_bavail)
    assert (found.files, found.ffree, found.namelen) == (expected.f_files, expected.f_ffree, 255)
    assert found.fsid[0] | found.fsid[1] << 32 == expected.f_fsid
    assert found.total_bytes == expected.f_blocks * expected.f_frsize
    assert found.free_bytes == expected.f_bfree * expected.f_frsize
    assert found.available_bytes == expected.f_bavail * expected.f_frsize
    assert not found.read_only


def test_fstatfs_sees_a_read_only_mount(read_only_dir: Path) -> None:
    fd = os.open(read_only_dir, os.O_RDONLY)
    try:
        assert native.fstatfs(fd).read_only
    finally:
        os.close(fd)


def test_an_unknown_file_system_is_named_by_its_number() -> None:
    fd = os.open("/proc", os.O_RDONLY)
    try:
        assert native.fstatfs(fd).name == "type 0x9fa0"
    finally:
        os.close(fd)


def test_immutable_is_set_and_lifted_and_other_flags_stay(reflink_dir: Path, opened: Opener) -> None:
    nodump = 0x40
    fd = opened(reflink_dir / "a")
    subprocess.run(["chattr", "+d", str(reflink_dir / "a")], check=True)
    native.set_immutable(fd, True)
    assert native.inode_flags(fd) & (native.FS_IMMUTABLE_FL | nodump) == native.FS_IMMUTABLE_FL | nodump
    with pytest.raises(PermissionError):
        os.unlink(reflink_dir / "a")
    native.set_immutable(fd, True)
    native.set_immutable(fd, False)
    assert native.inode_flags(fd) & (native.FS_IMMUTABLE_FL | nodump) == nodump
    os.unlink(reflink_dir / "a")


def test_set_immutable_that_changes_nothing_writes_nothing(reflink_fs: Loopback, small_fs: Loopback) -> None:
    # On a read-only file system FS_IOC_SETFLAGS is EROFS, even for the flags that are there.
    file = small_fs.path / "template"
    file.touch()
    with small_fs.read_only():
        fd = os.open(file, os.O_RDONLY)
        try:
            native.set_immutable(fd, False)
            with pytest.raises(OSError) as caught:
                native.set_immutable(fd, True, "images/100/base-100-disk-0.raw")
        finally:
            os.close(fd)
    file.unlink()
    assert (caught.value.errno, caught.value.filename) == (errno.EROFS, "images/100/base-100-disk-0.raw")


BAD_FD = -1
ON_A_BAD_FD: dict[str, Callable[[str], object]] = {
    "fallocate": lambda path: native.fallocate(BAD_FD, 0, 1, path=path),
    "punch_hole": lambda path: native.punch_hole(BAD_FD, 0, 1, path),
    "reflink_fd": lambda path: native.reflink_fd(BAD_FD, BAD_FD, path),
    "ocfs2_reflink": lambda path: native.ocfs2_reflink(BAD_FD, "a", "b", path=path),
    "data_extents": lambda path: native.data_extents(BAD_FD, 1, path),
    "fiemap": lambda path: list(native.fiemap(BAD_FD, path=path)),
    "shared_bytes": lambda path: native.shared_bytes(BAD_FD, path=path),
    "pread": lambda path: native.AlignedBuffer(4096).pread(BAD_FD, 0, path=path),
    "pwrite": lambda path: native.AlignedBuffer(4096).pwrite(BAD_FD, 0, path=path),
    "fsync": lambda path: native.fsync(BAD_FD, path),
    "fdatasync": lambda path: native.fdatasync(BAD_FD, path),
    "fstatfs": lambda path: native.fstatfs(BAD_FD, path),
    "inode_flags": lambda path: native.inode_flags(BAD_FD, path),
    "set_immutable": lambda path: native.set_immutable(BAD_FD, True, path),
    "device_size": lambda path: native.device_size(BAD_FD, path),
    "logical_sector_size": lambda path: native.logical_sector_size(BAD_FD, path),
    "physical_sector_size": lambda path: native.physical_sector_size(BAD_FD, path),
    "Digester": lambda path: native.Digester(BAD_FD, granularity=4096, path=path),
}


@pytest.mark.parametrize("name", ON_A_BAD_FD)
def test_every_call_carries_errno_and_path(name: str) -> None:
    with pytest.raises(OSError) as caught:
        ON_A_BAD_FD[name]("images/100/vm-100-disk-0.raw")
    assert caught.value.errno == errno.EBADF
    assert caught.value.filename == "images/100/vm-100-disk-0.raw"
    assert caught.value.strerror == os.strerror(errno.EBADF)


def test_every_call_of_the_module_is_among_those() -> None:
    by_hand = {"clone_file", "io_priority", "set_io_priority"}  # the latter have no file
    public = {
        name
        for name, value in vars(native).items()
        if callable(value) and getattr(value, "__module__", "").startswith(native.__name__) and name[0].islower()
    }
    of_classes = {"pread", "pwrite", "Digester"}
    assert public - by_hand == set(ON_A_BAD_FD) - of_classes


def test_the_priority_of_a_threads_io_is_its_own_and_a_wrong_one_is_refused() -> None:
    found: list[object] = []

    def change() -> None:
        native.set_io_priority(native.IoPriority(native.IOPRIO_CLASS_IDLE, 0))
        found.append(native.io_priority())
        native.set_io_priority(native.IoPriority(native.IOPRIO_CLASS_BE, 6))
        found.append(native.io_priority())
        try:
            native.set_io_priority(native.IoPriority(7, 0))
        except OSError as error:
            found.append(error.errno)

    before = native.io_priority()
    thread = threading.Thread(target=change)
    thread.start()
    thread.join()
    assert found[1:] == [(native.IOPRIO_CLASS_BE, 6), errno.EINVAL]
    assert isinstance(found[0], native.IoPriority) and found[0].group == native.IOPRIO_CLASS_IDLE
    assert native.io_priority() == before


def test_an_interrupted_call_is_repeated_after_the_handler_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [-errno.EINTR, -errno.EINTR, 7]
    assert native.extension.call(lambda: answers.pop(0), "") == 7
    assert not answers


def test_a_handler_that_raises_ends_an_interrupted_call() -> None:
    class Stop(Exception):
        pass

    def interrupted() -> int:
        os.kill(os.getpid(), signal.SIGUSR1)
        return -errno.EINTR

    def stop(_signal: int, _frame: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(Stop):
            native.extension.call(interrupted, "")
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_other_threads_run_while_a_call_hangs(small_fs: Loopback, small_dir: Path) -> None:
    # On a frozen file system fallocate() waits for the thaw. With the GIL held the child could say nothing until then.
    (small_dir / "image").touch()
    program = (
        "import os, sys, threading, time; from pvedrbdstor import native\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "hanging = threading.Thread(target=native.fallocate, args=(fd, 0, 4096))\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "hanging.start(); hanging.join(0.2); print('hangs', hanging.is_alive(), flush=True)\n"
        "hanging.join(); print('size', os.fstat(fd).st_size)\n"
    )
    argv = [sys.executable, "-c", program, str(small_dir / "image")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        subprocess.run(["fsfreeze", "--freeze", str(small_fs.path)], check=True)
        try:
            child.stdin.write("go\n")
            child.stdin.flush()
            spoke, _, _ = select.select([child.stdout], [], [], 5)
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", str(small_fs.path)], check=True)
        assert spoke, "the child was silent while its call hung"
        assert child.stdout.read() == "hangs True\nsize 4096\n"


def run_python(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout


def test_a_missing_extension_is_an_error_at_first_use_not_at_import() -> None:
    program = (
        "import sys; sys.modules['pvedrbdstor._native'] = None\n"
        "from pvedrbdstor import errors, native\n"
        "print('imported')\n"
        "try: native.fsync(0)\n"
        "except errors.NativeMissing as error: print(error)\n"
    )
    imported, message = run_python(program).splitlines()
    assert imported == "imported"
    assert message.startswith("The C extension of pvedrbdstor cannot be loaded:")
    assert issubclass(NativeMissing, Exception)


def test_import_stays_cheap() -> None:
    program = (
        "import sys; import pvedrbdstor.native\n"
        "print(*sorted({'dataclasses', 'inspect', 'subprocess', 'cffi', '_cffi_backend', 'json', 'pathlib'}"
        " & set(sys.modules)))"
    )
    assert run_python(program).strip() == ""
