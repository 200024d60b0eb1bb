"""Files that share their blocks: FICLONE, OCFS2's own reflink, and a clone by the one or the other."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from pvedrbdstor.native.extension import call, errors_name, extension
from pvedrbdstor.native.statfs import OCFS2_SUPER_MAGIC, fstatfs

# What a kernel or a file system says to an ioctl it does not have; EINVAL is a refusal only some of the time.
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EINVAL})

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def reflink_fd(source_fd: int, target_fd: int, path: str = "") -> None:
    """Make the open file ``target_fd`` share all blocks of ``source_fd`` (FICLONE, ioctl_ficlone(2)).

    EOPNOTSUPP, ENOTTY and EINVAL mean that the file system cannot, EXDEV that the two are on different ones.
    """
    call(extension().lib.sys_ficlone, path, source_fd, target_fd)


def ocfs2_reflink(fd: int, old_path: str, new_path: str, *, preserve: bool = False, path: str = "") -> None:
    """Create ``new_path`` as a reflink of ``old_path`` (OCFS2_IOC_REFLINK, issued on any ``fd`` of the file system).

    With ``preserve`` it also gets owner, mode, times and security attributes of the source; the user's extended
    attributes are copied either way. The last component of neither path may be a symbolic link
    (ocfs2_reflink_ioctl in fs/ocfs2/refcounttree.c). ``path`` defaults to ``new_path``.
    """
    call(
        extension().lib.sys_ocfs2_ioc_reflink,
        path or new_path,
        fd,
        os.fsencode(old_path),
        os.fsencode(new_path),
        int(preserve),
    )


def clone_file(
    source_fd: int,
    dir_fd: int,
    name: str,
    mode: int,
    path: str = "",
    made: Callable[[int], None] = lambda fd: None,
) -> int:
    """Create ``name`` in the folder ``dir_fd`` as a reflink of ``source_fd``; return it open for reading and writing.

    The file has exactly the permissions ``mode`` and no extended attributes of the source. An OCFS2 without FICLONE
    (before Linux 4.10) is asked with its own ioctl, which refuses an immutable source (EPERM). On failure nothing is
    left behind; EEXIST when ``name`` exists. Nothing is synced to disk. ``path`` defaults to ``name``. ``made`` is called
    with the new file as soon as others can see it, which with FICLONE is before it shares any block; OCFS2's own ioctl shows
    it only when it is done.
    """
    path = path or name
    try:
        return _clone_by_ficlone(source_fd, dir_fd, name, mode, path, made)
    except OSError as error:
        if error.errno not in _UNSUPPORTED or fstatfs(dir_fd, path).type != OCFS2_SUPER_MAGIC:
            raise
    return _clone_by_ocfs2(source_fd, dir_fd, name, mode, path, made)


def _clone_by_ficlone(source_fd: int, dir_fd: int, name: str, mode: int, path: str, made: Callable[[int], None]) -> int:
    with errors_name(path):
        target_fd = os.open(name, _NEW_FILE, 0o600, dir_fd=dir_fd)
        with _removed_on_failure(target_fd, dir_fd, name):
            made(target_fd)
            reflink_fd(source_fd, target_fd, path)
            os.fchmod(target_fd, mode)
    return target_fd


def _clone_by_ocfs2(source_fd: int, dir_fd: int, name: str, mode: int, path: str, made: Callable[[int], None]) -> int:
    with errors_name(path), _folder_of(source_fd) as (source_dir_fd, source_name):
        ocfs2_reflink(
            dir_fd, f"/proc/self/fd/{source_dir_fd}/{source_name}", f"/proc/self/fd/{dir_fd}/{name}", path=path
        )
        try:
            target_fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        except BaseException:
            os.unlink(name, dir_fd=dir_fd)
            raise
        with _removed_on_failure(target_fd, dir_fd, name):
            made(target_fd)
            _check_is_named(source_fd, source_dir_fd, source_name)
            for attribute in os.listxattr(target_fd):
                if attribute.startswith(("user.", "trusted.")):
                    os.removexattr(target_fd, attribute)
            os.fchmod(target_fd, mode)
    return target_fd


@contextmanager
def _folder_of(fd: int) -> Iterator[tuple[int, str]]:
    """The folder of an open file, as a descriptor, and its name there.

    OCFS2's ioctl takes the source by name and does not follow a link in the last component, so /proc/self/fd/N itself
    will not do. ESTALE when the file no longer has the name it was opened by.
    """
    folder, name = os.path.split(os.readlink(f"/proc/self/fd/{fd}"))
    dir_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check_is_named(fd, dir_fd, name)
        yield dir_fd, name
    finally:
        os.close(dir_fd)


def _check_is_named(fd: int, dir_fd: int, name: str) -> None:
    try:
        same = os.path.samestat(os.fstat(fd), os.stat(name, dir_fd=dir_fd, follow_symlinks=False))
    except FileNotFoundError:
        same = False
    if not same:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


@contextmanager
def _removed_on_failure(fd: int, dir_fd: int, name: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for clean_up in (partial(os.unlink, name, dir_fd=dir_fd), partial(os.close, fd)):
            with suppress(OSError):  # why we clean up says more than why we could not
                clean_up()
        raise
