"""The next Debian: the package builds on it, installs on it, and is there after a machine with it was upgraded.

`pytest -m soak tests/packaging/test_debian13.py`: it fetches a second Debian and takes minutes. The systems are chroots: no
systemd of Debian 13 runs here.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.packaging.base import ROOT, base_tarball
from tests.packaging.doubles import DOUBLES, PAGE, TEMPLATE
from tests.packaging.machine import Machine, unpack

pytestmark = pytest.mark.soak

NEXT = "trixie"
BUILDS = frozenset(
    [
        "build-essential",
        "debhelper",
        "dh-python",
        "fakeroot",
        "git",
        "liburing-dev",
        "libxxhash-dev",
        "pybuild-plugin-pyproject",
        "python3-all-dev",
        "python3-cffi",
        "python3-setuptools",
        "python3-wheel",
    ]
)


@pytest.fixture(scope="module")
def next_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian 13 with what the package needs to be built and to run."""
    names = {double.name for double in DOUBLES}
    tarball = base_tarball(names, release=NEXT, more=BUILDS)
    return unpack(tarball, tmp_path_factory.mktemp("next"))


@pytest.fixture
def next_machine(next_base: Path, doubles: list[Path], tmp_path: Path) -> Iterator[Machine]:
    folder = tmp_path / "next"
    folder.mkdir()
    with Machine(next_base, folder) as new:
        new.run("dpkg", "--install", *(new.copy_in(double) for double in doubles))
        yield new


def loads(machine: Machine) -> None:
    """Debian's own test of the package, and the line in the template."""
    script = machine.copy_in(ROOT / "debian" / "tests" / "smoke")
    said = machine.run("sh", script).stdout
    assert "all of it loads" in said
    assert machine.run("/usr/lib/pvedrbdstor/gui-hook", "status").stdout.startswith("enabled: ")


def test_it_is_built_and_installed_there(next_machine: Machine, tree: Path, tmp_path: Path) -> None:
    archive = tmp_path / "tree.tar"
    subprocess.run(["tar", "--create", f"--file={archive}", f"--directory={tree}", "."], check=True, timeout=60)
    inside = next_machine.copy_in(archive)
    next_machine.shell(
        f"mkdir /root/tree; tar -xf {inside} -C /root/tree; /root/tree/tools/build-deb.sh /root/built 2>&1",
        seconds=400,
    )
    next_machine.shell("apt-get install --yes --no-install-recommends /root/built/pvedrbdstor_*.deb")
    loads(next_machine)
    next_machine.run("apt-get", "purge", "--yes", "pvedrbdstor")
    assert next_machine.run("cat", TEMPLATE).stdout == PAGE


def test_the_package_built_on_this_debian_installs_there(
    next_machine: Machine, install: Callable[[Machine], str]
) -> None:
    install(next_machine)
    loads(next_machine)
