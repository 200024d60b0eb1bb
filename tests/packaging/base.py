"""The clean Debian the package is installed into: as small as apt allows, plus what the package depends on."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "packaging"
_LINKED = ["liburing2", "libxxhash0"]  # what debhelper fills in, beside the C library: csrc/build_native.py


def dependencies_from_debian(doubles: set[str]) -> list[str]:
    """What debian/control asks for, without what our test doubles stand for and what debhelper fills in."""
    control = (ROOT / "debian" / "control").read_text()
    depends = re.search(r"^Depends: (.*?)^\S", control, re.MULTILINE | re.DOTALL)
    assert depends is not None
    wanted = []
    for entry in depends[1].split(","):
        alternatives = [name.split()[0] for name in entry.split("|") if name.strip()]
        if not alternatives or alternatives[0].startswith("${") or doubles & set(alternatives):
            continue
        wanted.append(alternatives[0])
    return [*wanted, *_LINKED]


def base_tarball(doubles: set[str], *, release: str = "", more: frozenset[str] = frozenset()) -> Path:
    """A tarball of the base system, made by mmdebstrap(1) when there is none yet for this set of packages.

    ``release`` is this machine's own unless another one is named; ``more`` are packages beyond what ours depends on.
    """
    release = release or own_release()
    packages = sorted({"ca-certificates", "perl", "python3", "systemd", *more, *dependencies_from_debian(doubles)})
    key = hashlib.sha256(" ".join([release, *packages]).encode()).hexdigest()[:12]
    tarball = CACHE / f"{release}-{key}.tar"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:  # tests run side by side; one of them makes it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tarball.exists():
            _make(tarball, release, packages)
    return tarball


def _make(tarball: Path, release: str, packages: list[str]) -> None:
    options = CACHE / f"apt.{os.getpid()}.conf"
    new = CACHE / f"new.{os.getpid()}.tar"
    options.write_text(apt_options())
    how = [f"--aptopt={options}", "--format=tar", release, str(new), *mirrors(release)]
    try:
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}", *how],
            check=True,
            timeout=400,
        )
        new.rename(tarball)
    finally:
        options.unlink()
        new.unlink(missing_ok=True)


def own_release() -> str:
    """This machine's Debian by its code name."""
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def mirrors(release: str) -> list[str]:
    """Debian's own repositories as this machine's apt knows them, one sources.list line each, for a given release."""
    targets = _targets()
    if not targets:
        subprocess.run(["apt-get", "-q", "update"], check=True, timeout=300)
        targets = _targets()
    own = own_release()
    lines = [
        f"deb {uri} {suite.replace(own, release)} {component}"
        for uri, suite, component in targets
        if suite.startswith(own)
    ]
    assert lines, f"apt on this machine knows no repository of Debian {own}: see apt-get indextargets"
    return lines


def _targets() -> list[tuple[str, str, str]]:
    of_debian = ("Created-By: Packages", "Origin: Debian")
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", *of_debian],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    return [(uri, suite, component) for uri, suite, component in map(str.split, listed.stdout.splitlines())]


def apt_options() -> str:
    """How this machine's apt reaches its mirrors: proxies, certificates, and whether it believes their clocks."""
    dump = subprocess.run(["apt-config", "dump", "Acquire"], check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    wanted = re.compile(r'Acquire::(https?(::\S*)?|Check-Date|Check-Valid-Until) "[^"]+";')
    return "".join(f"{line}\n" for line in dump.stdout.splitlines() if wanted.fullmatch(line))
