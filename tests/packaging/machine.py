"""A throw-away machine: the base system under an overlay in memory, in namespaces that end with it.

Nothing is mounted where the host could see it, and no process survives: when the holder ends (also because the tests were
killed and its standard input closed), the kernel takes down the mounts and whatever still runs.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from types import TracebackType

_HOLD = """
mount -t proc proc /proc
mount -t tmpfs run /run
mount -t tmpfs -o size=3g tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
echo ready
read -r _ || true
"""
_UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--"]
_ENVIRONMENT = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]


class Machine:
    """The base system in ``lower`` (never written to) with a writable layer of its own; ``folder`` must be empty."""

    def __init__(self, lower: Path, folder: Path) -> None:
        self._lower = lower
        self._folder = folder

    def __enter__(self) -> Machine:
        self._holder = subprocess.Popen(
            [*_UNSHARE, "sh", "-euc", _HOLD, "hold", str(self._folder), str(self._lower)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        try:
            assert self._holder.stdout.readline() == "ready\n", "the overlay could not be mounted"
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self) -> None:
        """Bring the machine up; whatever this starts ends with the holder."""
        self.run("mount", "-t", "proc", "proc", "/proc")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder.kill()
        self._holder.communicate(timeout=20)

    def _inside(self) -> list[str]:
        """What comes before a command that runs on the machine."""
        return [*self._enter(), "chroot", str(self._folder / "root")]

    def run(
        self, *command: str, check: bool = True, text: str = "", seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root inside; output and errors together in ``stdout``. ``text`` is its standard input."""
        result = subprocess.run(
            [*self._inside(), "env", "-i", *_ENVIRONMENT, *command],
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )
        assert not check or result.returncode == 0, f"{command} ended with {result.returncode}:\n{result.stdout}"
        return result

    def _enter(self) -> list[str]:
        holder = f"/proc/{self._holder.pid}"
        namespaces = [f"--mount={holder}/ns/mnt", f"--pid={holder}/ns/pid_for_children"]
        # its root as well: the tests may run in a chroot themselves
        return ["nsenter", *namespaces, f"--root={holder}/root", "--wd=/", "--"]

    def shell(self, script: str, seconds: float = 120) -> str:
        """Run lines of shell; what they print, with white space at the ends removed."""
        return self.run("sh", "-euc", script, seconds=seconds).stdout.strip()

    def write(self, path: str, text: str) -> None:
        """Make a file and the folders above it."""
        self.run("sh", "-euc", 'mkdir -p "$(dirname "$1")"; cat >"$1"', "sh", path, text=text)

    def copy_in(self, file: Path) -> str:
        """Put a file of the host into /root; its path inside."""
        name = f"/root/{file.name}"
        with file.open("rb") as source:
            subprocess.run(
                [*self._inside(), "dd", "status=none", f"of={name}"],
                stdin=source,
                check=True,
                timeout=60,
            )
        return name

    def files(self) -> set[str]:
        """Every path on it, but for what apt, dpkg and ldconfig keep for themselves."""
        found = self.run("find", "/", "-xdev", "-path", "/proc", "-prune", "-o", "-print").stdout.splitlines()
        own = ("/proc", "/var/lib/dpkg/", "/var/lib/apt/", "/var/cache/", "/var/log/", "/root/", "/tmp/")
        return {path for path in found if not path.startswith(own)}


class BootedMachine(Machine):
    """A machine with systemd as its first process, as on a real node; with a network of its own that leads nowhere."""

    _nspawn: subprocess.Popen[bytes] | None = None
    _first = 0  # its first process as the host sees it; 0 while it does not run

    def _start(self) -> None:
        self.boot()

    def boot(self, ends_as: str = "running") -> None:
        """Boot, until nothing is left to start; ``ends_as`` is systemd's word for it, `degraded` where a unit fails."""
        # A host that runs systemd must be asked for a cgroup; elsewhere ours will do.
        scope = ["systemd-run", "--quiet", "--scope", "--property=Delegate=yes", "--"]
        with (self._folder / "console").open("wb") as console:
            self._nspawn = nspawn = subprocess.Popen(
                [
                    *(scope if Path("/run/systemd/system").is_dir() else []),
                    *self._enter(),
                    *("systemd-nspawn", "--boot", "--directory", str(self._folder / "root")),
                    *("--keep-unit", "--register=no", "--private-network", "--capability=all", "--console=pipe"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 180
        while True:
            # nsenter, systemd-nspawn, systemd
            self._first = _descendant(nspawn.pid, 2)
            if self._first and self.run("systemctl", "is-system-running", check=False).stdout.strip() == ends_as:
                return
            seen = (self._folder / "console").read_text(errors="replace")
            assert nspawn.poll() is None, f"systemd-nspawn could not boot the machine:\n{seen}"
            assert time.monotonic() < deadline, f"the machine did not boot in time:\n{seen}"
            time.sleep(0.1)

    def power_off(self) -> None:
        """Shut down as an administrator would. What is on its disk can be looked at, and it can be booted again."""
        assert self._nspawn is not None
        self.run("systemctl", "poweroff")
        self._nspawn.wait(60)
        self._nspawn, self._first = None, 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._nspawn is not None:
            self._nspawn.wait(20)

    def _inside(self) -> list[str]:
        if not self._first:
            return super()._inside()
        namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
        return ["nsenter", f"--target={self._first}", *namespaces, "--"]


def _descendant(pid: int, generations: int) -> int:
    """The first child's first child ... of a process, so many times; 0 when there is none yet."""
    for _ in range(generations):
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            return 0
        if not children:
            return 0
        pid = int(children[0])
    return pid


def unpack(tarball: Path, folder: Path) -> Path:
    """Unpack the base system; the folder."""
    subprocess.run(["tar", "-xf", str(tarball), "-C", str(folder), "--numeric-owner"], check=True, timeout=120)
    return folder
