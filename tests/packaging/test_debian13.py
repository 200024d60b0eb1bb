"""The next Debian: the package builds on it, installs on it, and is there after a machine with it was upgraded.

`pytest -m soak tests/packaging/test_debian13.py`: it fetches a second Debian and takes minutes. The systems are chroots: no
systemd of Debian 13 runs here.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.packaging.base import ROOT, apt_options, base_tarball, mirrors, own_release
from tests.packaging.conftest import NEWER
from tests.packaging.doubles import DOUBLES, PAGE, TEMPLATE, pve_manager
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
        "python3-myst-parser",
        "python3-setuptools",
        "python3-sphinx",
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


def test_an_upgrade_of_debian_with_the_package_installed(
    installed: Machine, newer_package: Path, tmp_path: Path
) -> None:
    """apt's whole upgrade, in which Python, Perl and all libraries change; then Proxmox's and ours."""
    if own_release() == NEXT:
        pytest.skip("this machine is that Debian already")
    resolver = Path("/etc/resolv.conf").read_text()
    installed.write("/etc/resolv.conf", resolver)
    installed.write("/etc/apt/apt.conf.d/99test", apt_options())
    installed.write("/etc/apt/sources.list", "".join(f"{line}\n" for line in mirrors(NEXT)))
    installed.shell("rm -rf /etc/apt/sources.list.d/*")
    for command in ("update", "full-upgrade --yes --no-install-recommends"):
        installed.shell(
            f"timeout 900 apt-get -q -o Dpkg::Options::=--force-confold {command} >/root/log 2>&1 || "
            "{ tail -40 /root/log; exit 1; }",
            seconds=910,
        )
    assert installed.shell(". /etc/os-release; echo $VERSION_CODENAME") == NEXT
    loads(installed)
    deb = pve_manager(PAGE.replace("a double", "Proxmox VE 9"), "9~double").build(tmp_path)
    installed.run("dpkg", "--install", installed.copy_in(deb))
    loads(installed)
    installed.run("dpkg", "--install", installed.copy_in(newer_package))
    assert installed.shell("dpkg-query --show --showformat '${Version}' pvedrbdstor") == NEWER
    loads(installed)
