"""How a node's machine is started: User Mode Linux, or qemu (by KVM, else emulating a CPU) where UML cannot run."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from tests.lab.assets import CACHE, HERE, REPOSITORY, Assets, prepare_tcg, prepare_uml
from tests.lab.errors import LabError

_PROBE_SECONDS = 30
_ACCELERATORS = {
    "tcg": ("-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max"),
    # A hypervisor below ours may not let qemu write the MSR behind this feature, which ends qemu.
    "kvm": ("-accel", "kvm", "-cpu", "host,-arch-capabilities"),
}


@dataclass(frozen=True)
class Machine:
    """What a backend needs to know of the machine to start. memory is in MiB; serial and ethernet are descriptors.

    first: what runs as PID 1, the lab's own "agent" or "systemd", which then runs the agent.
    """

    name: str
    number: int
    folder: Path
    disk: Path
    share: Path
    memory: int
    serial: int
    ethernet: int
    first: str = "agent"

    @property
    def mac(self) -> str:
        return f"02:00:00:00:00:{self.number:02x}"


def address_of(number: int) -> str:
    """The IPv4 address of node ``number``, as guest/init.sh has it in /etc/hosts."""
    return f"10.77.0.{number}"


class Backend(Protocol):
    """A way to run a machine."""

    @property
    def kind(self) -> str:
        """The word for it: uml, kvm or tcg."""

    @property
    def disk_device(self) -> str:
        """What the machine's disk is called in the guest."""

    @property
    def memory(self) -> int:
        """How much memory a machine needs, in MiB."""

    def command(self, machine: Machine) -> list[str]:
        """The program that is the machine; it inherits the descriptors of ``machine``, its output is the console."""

    def environment(self) -> dict[str, str]:
        """Additions to that program's environment."""


def boot_arguments(kind: str, assets: Assets, machine: Machine) -> list[str]:
    """What guest/init.sh reads from the kernel's command line."""
    values = {
        "LAB_KIND": kind,
        "LAB_NODE": f"node{machine.name}",
        "LAB_IP": address_of(machine.number),
        "LAB_SHARE": machine.share,
        "LAB_MODULES": assets.modules_dir,
        "LAB_CHECKOUT": REPOSITORY,
        "LAB_AGENT": HERE / "guest" / "agent.py",
        "LAB_FIRST": machine.first,
    }
    for key, value in values.items():
        if any(character.isspace() for character in str(value)):
            raise LabError(f"{key}: the lab cannot run below a folder with a blank in its name: {value}")
    return [f"{key}={value}" for key, value in values.items()]


@dataclass(frozen=True)
class UserModeLinux:
    """The kernel as an ordinary process: boots in a second, needs ptrace and nothing else."""

    assets: Assets
    kind: str = "uml"
    disk_device: str = "/dev/ubda"
    memory: int = 256

    def command(self, machine: Machine) -> list[str]:
        return [
            str(self.assets.kernel),
            f"mem={machine.memory}M",
            f"initrd={self.assets.initramfs}",
            *("con=null", "con0=null,fd:1", "con1=null"),
            f"ssl0=fd:{machine.serial},fd:{machine.serial}",
            f"ubd0c={machine.disk}",  # c: without a lock, which a process left over by UML's own reboot may hold for ever
            f"vec0:transport=fd,fd={machine.ethernet},mac={machine.mac}",
            *(f"uml_dir={machine.folder}", "umid=uml", "panic=-1"),
            *boot_arguments(self.kind, self.assets, machine),
        ]

    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.assets.shim), "TMPDIR": str(scratch_root())}


@dataclass(frozen=True)
class Qemu:
    """A whole machine with two CPUs and the distribution's own kernel.

    Emulated (tcg) it runs anywhere, several times slower; by the host's CPU (kvm) where that really works.
    """

    assets: Assets
    kind: Literal["tcg", "kvm"] = "tcg"
    disk_device: str = "/dev/vda"
    memory: int = 384

    def command(self, machine: Machine) -> list[str]:
        append = ["console=ttyS0", "panic=-1", "mitigations=off", "nokaslr", "tsc=reliable", "no_timer_check", "quiet"]
        return [
            "qemu-system-x86_64",
            *("-M", "q35,hpet=off", *_ACCELERATORS[self.kind], "-smp", "2"),
            *("-m", str(machine.memory), "-display", "none", "-nodefaults", "-no-user-config", "-no-reboot"),
            *("-serial", "stdio", "-kernel", str(self.assets.kernel), "-initrd", str(self.assets.initramfs)),
            *("-append", " ".join(append + boot_arguments(self.kind, self.assets, machine))),
            *("-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"),
            *("-device", "virtio-9p-pci,fsdev=root,mount_tag=hostroot"),
            *("-fsdev", f"local,id=share,path={machine.share},security_model=none"),
            *("-device", "virtio-9p-pci,fsdev=share,mount_tag=share"),
            *("-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,fd={machine.serial}"),
            *("-device", "virtserialport,chardev=agent,name=agent,nr=1"),
            *("-netdev", f"dgram,id=net,local.type=fd,local.str={machine.ethernet}"),
            *("-device", f"virtio-net-pci,netdev=net,mac={machine.mac}"),
            *("-drive", f"if=none,id=disk,file={machine.disk},format=raw,cache=unsafe,discard=unmap"),
            *("-device", "virtio-blk-pci,drive=disk,serial=lower", "-device", "virtio-rng-pci"),
        ]

    def environment(self) -> dict[str, str]:
        return {}


def choose(kind: str | None = None, cache: Path = CACHE) -> Backend:
    """The backend named (also by the environment variable LAB_BACKEND), else UML or KVM where it boots, else TCG.

    Raises LabError.
    """
    kind = kind or os.environ.get("LAB_BACKEND")
    if kind not in (None, "uml", "kvm", "tcg"):
        raise LabError(f"there is no backend {kind!r}: say uml, kvm or tcg")
    if kind in (None, "uml"):
        assets = prepare_uml(cache)
        if kind == "uml" or uml_boots(assets, cache):
            return UserModeLinux(assets)
    if shutil.which("qemu-system-x86_64") is None:
        raise LabError("the nodes need qemu here: install the packages of tests/lab/packages.txt")
    assets = prepare_tcg(cache)
    if kind == "kvm" or (kind is None and kvm_boots(assets, cache)):
        return Qemu(assets, "kvm")
    return Qemu(assets)


def uml_boots(assets: Assets, cache: Path = CACHE) -> bool:
    """Whether UML really boots here, tried once per boot of this host: ptrace may be forbidden, the CPU too new."""
    with tempfile.TemporaryDirectory(prefix="drbdocfs2-probe-") as folder:
        command = [str(assets.kernel), "mem=160M", f"initrd={assets.initramfs}", "con=null", "con0=null,fd:1"]
        command += [f"uml_dir={folder}", "umid=probe", "panic=-1", "LAB_KIND=probe"]
        return boots("uml", command, UserModeLinux(assets).environment(), cache)


def kvm_boots(assets: Assets, cache: Path = CACHE) -> bool:
    """Whether a machine really boots by KVM, tried once per boot of this host: /dev/kvm in a cloud may only be there."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    command = ["qemu-system-x86_64", "-M", "q35", *_ACCELERATORS["kvm"], "-m", "256", "-display", "none"]
    command += ["-nodefaults", "-no-user-config", "-no-reboot", "-serial", "stdio", "-kernel", str(assets.kernel)]
    command += ["-initrd", str(assets.initramfs), "-append", "console=ttyS0 panic=-1 quiet LAB_KIND=kvm-probe"]
    return boots("kvm", command, {}, cache)


def boots(kind: str, command: list[str], environment: dict[str, str], cache: Path) -> bool:
    """Whether the machine gets as far as guest/init.sh; remembered until the host boots again, a failure too."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    memo = cache / f"{kind}-boots-{boot_id}"
    if not memo.exists():
        part = memo.with_name(f"{memo.name}.{os.getpid()}")
        part.write_text("yes" if _probe(command, environment) else "no")
        part.rename(memo)
    return memo.read_text() != "no"


def _probe(command: list[str], environment: dict[str, str]) -> bool:
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_SECONDS,
            start_new_session=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return b"LAB-PROBE-OK" in done.stdout


def scratch_root() -> Path:
    """Where disks and memory of nodes lie: in memory where there is room, as fsync on a small host's disk is slow."""
    shm = Path("/dev/shm")
    enough = 3 << 30
    if shm.is_dir() and os.access(shm, os.W_OK) and shutil.disk_usage(shm).free >= enough:
        return shm
    return Path("/var/tmp")
