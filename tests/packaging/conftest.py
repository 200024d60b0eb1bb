"""The package, built once for all tests, and machines to put it on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.packaging.base import ROOT, base_tarball
from tests.packaging.doubles import DOUBLES
from tests.packaging.machine import BootedMachine, Machine, unpack

NEWER = "99"


def build(tree: Path, folder: Path, *version: str, **environment: str) -> Path:
    """Build the package of a tree into ``folder``; the .deb."""
    built = subprocess.run(
        [str(tree / "tools" / "build-deb.sh"), str(folder), *version],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
    )
    assert built.returncode == 0, built.stdout
    (deb,) = folder.glob("pvedrbdstor_*.deb")
    return deb


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as it is now: all packages are built of this copy, whatever is edited meanwhile."""
    folder = tmp_path_factory.mktemp("tree")
    subprocess.run([str(ROOT / "tools" / "export.sh"), str(folder)], check=True, timeout=60)
    return folder


@pytest.fixture(scope="session")
def package(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The .deb of the tree."""
    return build(tree, tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="session")
def newer_package(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same tree as a later version."""
    return build(tree, tmp_path_factory.mktemp("newer"), NEWER)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the clean base system; never written to."""
    return unpack(base_tarball({double.name for double in DOUBLES}), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def doubles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("doubles")
    return [double.build(folder) for double in DOUBLES]


@pytest.fixture
def machine(base: Path, doubles: list[Path], tmp_path: Path) -> Iterator[Machine]:
    """A clean machine with Proxmox's doubles, without our package."""
    folder = tmp_path / "machine"
    folder.mkdir()
    with Machine(base, folder) as new:
        new.run("dpkg", "--install", *(new.copy_in(double) for double in doubles))
        yield new


@pytest.fixture
def booted(
    base: Path, doubles: list[Path], install: Callable[[Machine], str], tmp_path: Path
) -> Iterator[BootedMachine]:
    """A machine with a running systemd, Proxmox's doubles and our package."""
    folder = tmp_path / "booted"
    folder.mkdir()
    with BootedMachine(base, folder) as new:
        new.run("dpkg", "--install", *(new.copy_in(double) for double in doubles))
        install(new)
        yield new


@pytest.fixture
def install(package: Path) -> Callable[[Machine], str]:
    """Installs the package as an administrator would, by apt, without a network; returns what apt said."""

    def run(machine: Machine) -> str:
        deb = machine.copy_in(package)
        return machine.run("apt-get", "install", "--yes", "--no-install-recommends", deb).stdout

    return run


@pytest.fixture
def installed(machine: Machine, install: Callable[[Machine], str]) -> Machine:
    """A machine with our package."""
    install(machine)
    return machine
