"""What nodes are booted from: kernels, initramfs and the shim, kept in a cache folder, never installed on the host."""

from __future__ import annotations

import fcntl
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab import initramfs
from tests.lab.errors import LabError

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
CACHE = REPOSITORY / ".cache" / "lab"

_CLUSTER_MODULES = ("drbd", "ocfs2", "ocfs2_stack_o2cb", "ocfs2_dlm", "ocfs2_dlmfs", "overlay", "loop", "ext4")
_VIRTIO_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "9p", "9pnet_virtio")
_GUEST_MODULES = ("virtio_pci", "virtio_blk")


@dataclass(frozen=True)
class Assets:
    """One bootable kernel. modules_dir is its /lib/modules/VERSION; shim is None where no shim is needed."""

    kernel: Path
    initramfs: Path
    modules_dir: Path
    shim: Path | None = None


def prepare_uml(cache: Path = CACHE) -> Assets:
    """User Mode Linux from Debian's package, its initramfs, and the shim for CPUs with AMX (compiled here).

    Idempotent; milliseconds when everything is there. Raises LabError.
    """
    with _locked(cache):
        tree = _unpacked("user-mode-linux", cache)
        modules_dir = _only(tree / "usr/lib/uml/modules")
        shim = cache / f"amx-{_digest(HERE / 'amx_shim.c')}.so"
        if not shim.exists():
            _run(
                [
                    "gcc",
                    "-O1",
                    "-Wall",
                    "-Wextra",
                    "-Werror",
                    "-shared",
                    "-fPIC",
                    "-o",
                    f"{shim}.part",
                    str(HERE / "amx_shim.c"),
                    "-ldl",
                ]
            )
            os.rename(f"{shim}.part", shim)
        image = _initramfs(cache, "uml", modules_dir, _CLUSTER_MODULES)
        return Assets(tree / "usr/bin/linux.uml", image, modules_dir, shim)


def prepare_tcg(cache: Path = CACHE) -> Assets:
    """Debian's own kernel with what a node needs.

    Idempotent. Raises LabError.
    """
    with _locked(cache):
        vmlinux, modules_dir = _distribution_kernel(cache)
        image = _initramfs(cache, "tcg", modules_dir, (*_VIRTIO_MODULES, *_CLUSTER_MODULES))
        return Assets(vmlinux, image, modules_dir)


def prepare_guest(cache: Path = CACHE) -> Assets:
    """What real guests boot: Debian's own kernel, and an initramfs that runs guests/counter.c.

    Idempotent. Raises LabError.
    """
    with _locked(cache):
        vmlinux, modules_dir = _distribution_kernel(cache)
        source = HERE / "guests" / "counter.c"
        counter = cache / f"counter-{_digest(source)}"
        if not counter.exists():
            warnings = ("-Wall", "-Wextra", "-Werror")
            _run(["gcc", "-O2", *warnings, "-static", "-s", "-o", f"{counter}.part", str(source)])
            os.rename(f"{counter}.part", counter)
        init = HERE / "guests" / "init.sh"
        image = _initramfs(cache, "guest", modules_dir, _GUEST_MODULES, init, {"bin/counter": counter})
        return Assets(vmlinux, image, modules_dir)


def prepare_handler(cache: Path = CACHE) -> Path:
    """The fence-peer handler, as the package has it: one static program.

    Idempotent. Raises LabError.
    """
    with _locked(cache):
        source = REPOSITORY / "csrc" / "handler" / "fence-peer.c"
        handler = cache / f"fence-peer-{_digest(source)}"
        if not handler.exists():
            _run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s", "-o", f"{handler}.part", str(source)])
            os.rename(f"{handler}.part", handler)
        return handler


def prepare_lvm(cache: Path = CACHE) -> list[Path]:
    """LVM's tools and what they need beside what every host has: the roots of their unpacked packages.

    Idempotent. Raises LabError.
    """
    with _locked(cache):
        trees = [_unpacked(package, cache) for package in ("lvm2", "libdevmapper-event1.02.1")]
        try:
            return [*trees, _unpacked("libaio1t64", cache)]  # since Debian 13
        except LabError:
            return [*trees, _unpacked("libaio1", cache)]


def _distribution_kernel(cache: Path) -> tuple[Path, Path]:
    """Debian's kernel (not the cloud one, which has no ocfs2) as an ELF file, which qemu starts without a firmware, and its
    modules' folder."""
    tree = _unpacked(_kernel_package(), cache)
    modules_dir = _only(tree / "lib/modules")
    if not (modules_dir / "modules.dep").exists():
        _run(["depmod", "-b", str(tree), modules_dir.name])
    vmlinux = tree / "vmlinux"
    if not vmlinux.exists():
        part = tree / "vmlinux.part"
        part.write_bytes(_elf_kernel((tree / f"boot/vmlinuz-{modules_dir.name}").read_bytes()))
        part.rename(vmlinux)
    return vmlinux, modules_dir


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """One preparation at a time in a cache folder that several runs share."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _initramfs(
    cache: Path,
    kind: str,
    modules_dir: Path,
    modules: Sequence[str],
    init: Path = HERE / "guest" / "init.sh",
    programs: Mapping[str, Path] | None = None,
) -> Path:
    programs = programs or {}
    sources = (init, HERE / "initramfs.py", *programs.values())
    recipe = f"{' '.join(map(_digest, sources))} {modules_dir.name} {' '.join(modules)}"
    target = cache / f"{kind}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.cpio"
    if not target.exists():
        initramfs.build(modules_dir, modules, init, target, programs)
    return target


def _unpacked(package: str, cache: Path) -> Path:
    """Download a Debian package with apt and unpack it below the cache folder."""
    tree = cache / package
    if tree.exists():
        return tree
    debs = cache / "debs"
    shutil.rmtree(debs, ignore_errors=True)
    debs.mkdir()
    # apt-get download drops its privileges to _apt, which may not enter this folder: -o keeps root.
    _run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package], cwd=debs)
    part = cache / f"{package}.part"
    shutil.rmtree(part, ignore_errors=True)
    _run(["dpkg-deb", "-x", str(_only(debs)), str(part)])
    part.rename(tree)
    shutil.rmtree(debs)
    return tree


def _kernel_package() -> str:
    """The package that linux-image-amd64 stands for today."""
    depends = _run(["apt-cache", "depends", "linux-image-amd64"])
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    if found is None:
        raise LabError("apt knows no linux-image-amd64: run apt-get update")
    return found[1]


def _elf_kernel(bzimage: bytes) -> bytes:
    """The ELF kernel that lies compressed in a bzImage."""
    decompressors: dict[bytes, Callable[[bytes], bytes]] = {
        b"\xfd7zXZ\0": lambda data: lzma.LZMADecompressor().decompress(data),
        b"\x1f\x8b\x08": lambda data: zlib.decompressobj(31).decompress(data),
    }
    for magic, decompress in decompressors.items():
        start = bzimage.find(magic)
        while start >= 0:
            try:
                kernel = decompress(bzimage[start:])
            except (lzma.LZMAError, zlib.error):
                kernel = b""
            if kernel.startswith(b"\x7fELF"):
                return kernel
            start = bzimage.find(magic, start + 1)
    raise LabError("no ELF kernel found in the distribution's bzImage")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _only(folder: Path) -> Path:
    entries = sorted(folder.iterdir())
    if len(entries) != 1:
        raise LabError(f"expected one entry in {folder}, found {[entry.name for entry in entries]}")
    return entries[0]


def _run(argv: Sequence[str], cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]} is missing: install the packages of tests/lab/packages.txt") from error
    if done.returncode != 0:
        raise LabError(f"{' '.join(argv)} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout
