"""Loop devices, and file systems on them, that are gone when the tests are, however they end."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

_HOLDER = Path(__file__).with_name("loop_device.sh")
_BUSY = 3


class Loopback:
    """A loop device of ``size_mib`` MiB, formatted with XFS (reflink) and mounted if ``kind`` is "xfs".

    ``device`` is its path, ``path`` the mount point. loop_device.sh makes both and takes them down when its standard
    input ends, which it also does when this process is killed. RuntimeError with the reason when they cannot be made.
    """

    def __init__(self, size_mib: int, *, kind: str = "none", sector_size: int = 512) -> None:
        if os.geteuid() != 0:
            raise RuntimeError("these tests attach loop devices and mount file systems: run them as root")
        folder = Path(tempfile.mkdtemp(prefix="pvedrbdstor-test-"))
        self.path = folder / "mnt"
        self._holder = subprocess.Popen(
            [str(_HOLDER), str(folder), str(size_mib), str(sector_size), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._holder.stdout is not None
        self.device = self._holder.stdout.readline().strip()
        if not self.device:
            _, said = self._holder.communicate()
            raise RuntimeError(f"cannot set up a loop device with {kind}, which these tests need: {said.strip()}")

    def __enter__(self) -> Loopback:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unmount, detach and remove the image; warns when a process still uses the mount."""
        _, said = self._holder.communicate("end\n")
        if self._holder.returncode == _BUSY:
            warnings.warn(f"{self.path} was still in use when the tests ended: something leaks", stacklevel=2)
        elif self._holder.returncode != 0:
            raise RuntimeError(f"taking down {self.device} failed: {said.strip()}")

    @contextmanager
    def read_only(self) -> Iterator[Path]:
        """Mounted read-only for as long as the block runs; nothing may be open for writing."""
        self._remount("ro")
        try:
            yield self.path
        finally:
            self._remount("rw")

    def _remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.path)], check=True)


def fill(folder: Path, leave: int = 0) -> Path:
    """Allocate the free blocks of the file system below ``folder``, but ``leave`` bytes, to one file there; return it."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        size, step = 0, 1 << 30
        while step >= 4096:
            free = os.fstatvfs(file.fileno())
            try:
                if free.f_bavail * free.f_frsize < leave + step:
                    raise OSError(errno.ENOSPC, "as full as wanted")
                os.posix_fallocate(file.fileno(), size, step)
                size += step
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                step //= 2
        os.fsync(file.fileno())
    return ballast


@contextmanager
def fresh_folder(parent: Path) -> Iterator[Path]:
    """A new folder in ``parent``, removed with all it holds, immutable files included."""
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield folder
    finally:
        try:
            shutil.rmtree(folder)
        except PermissionError:
            subprocess.run(["chattr", "-R", "-f", "-i", str(folder)], check=False, stderr=subprocess.DEVNULL)
            shutil.rmtree(folder)
