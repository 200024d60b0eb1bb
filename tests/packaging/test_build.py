"""What is built: the same bytes every time, clean for lintian, and installable on the next Debian."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pvedrbdstor import __version__
from tests.packaging.base import ROOT
from tests.packaging.conftest import build
from tests.test_documents import broken_links


def field(package: Path, name: str) -> str:
    shown = subprocess.run(
        ["dpkg-deb", "--field", str(package), name], check=True, stdout=subprocess.PIPE, text=True, timeout=60
    )
    return shown.stdout.strip()


def test_two_builds_in_different_surroundings_give_the_same_bytes(tree: Path, package: Path, tmp_path: Path) -> None:
    again = build(tree, tmp_path / "elsewhere", TZ="Asia/Tokyo", LC_ALL="C", HOME="/nonexistent", CFLAGS="-O0")
    assert again.read_bytes() == package.read_bytes()


def test_building_changes_nothing_in_the_tree(tree: Path, package: Path, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    subprocess.run([str(tree / "tools" / "export.sh"), str(fresh)], check=True, timeout=60)
    assert sorted(path.relative_to(fresh) for path in fresh.rglob("*")) == sorted(
        path.relative_to(tree) for path in tree.rglob("*")
    )


def test_lintian_finds_no_error_and_no_warning(package: Path) -> None:
    found = subprocess.run(
        [str(ROOT / "tools" / "lint-deb.sh"), str(package.parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
    )
    assert found.returncode == 0, found.stdout


def test_lintian_finds_no_error_and_no_warning_in_the_source_package(tree: Path, tmp_path: Path) -> None:
    """Debian's files themselves: debian/watch, debian/tests, debian/control."""
    shutil.copytree(tree, tmp_path / "pvedrbdstor")
    built = subprocess.run(
        ["dpkg-source", "--build", "pvedrbdstor"], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert built.returncode == 0, built.stderr
    (source,) = tmp_path.glob("*.dsc")
    how = ["--pedantic", "--fail-on=error,warning", "--allow-root"]
    found = subprocess.run(["lintian", *how, str(source)], capture_output=True, text=True, timeout=200)
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_link_in_the_documents_leads_to_a_file_in_the_package(package: Path, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "--extract", str(package), str(tmp_path)], check=True, timeout=60)
    documents = sorted((tmp_path / "usr/share/doc/pvedrbdstor").rglob("*.md"))
    assert len(documents) > 5
    assert [link for document in documents for link in broken_links(document)] == []


def test_the_version_of_the_package_is_that_of_the_program(package: Path) -> None:
    assert field(package, "Version") == __version__


def test_no_dependency_forbids_a_newer_python(package: Path) -> None:
    """An upgrade of Debian, and of Python with it, must not force apt to take the package away."""
    python = [
        entry.strip() for entry in field(package, "Depends").split(",") if re.match(r"\s*python3(:any)?\b(?!-)", entry)
    ]
    assert python, "the package does not depend on Python at all"
    assert not [entry for entry in python if "<" in entry]


@pytest.mark.parametrize(
    "path",
    [
        "./usr/bin/pvedrbdstor",
        "./usr/lib/python3/dist-packages/pvedrbdstor/_native.abi3.so",
        "./usr/lib/pvedrbdstor/gui-hook",
        "./usr/share/bash-completion/completions/pvedrbdstor",
        "./usr/share/doc-base/pvedrbdstor.pvedrbdstor",
        "./usr/share/doc/pvedrbdstor/changelog.gz",
        "./usr/share/doc/pvedrbdstor/copyright",
        "./usr/share/doc/pvedrbdstor/html/index.html",
        "./usr/share/doc/pvedrbdstor/html/man/pvedrbdstor.8.html",
        "./usr/share/man/man7/drbdocfs2.7.gz",
        "./usr/share/man/man8/pvedrbdstor.8.gz",
        "./usr/share/perl5/PVE/Storage/Custom/DRBDOCFS2Plugin.pm",
        "./usr/share/perl5/PVE/Storage/DRBDOCFS2/Client.pm",
        "./usr/share/pve-manager/js/drbdocfs2.js",
    ],
)
def test_the_package_has(package: Path, path: str) -> None:
    assert path in contents(package)


def test_the_package_has_its_units_and_no_others(package: Path) -> None:
    units = {path.rpartition("/")[2] for path in contents(package) if re.search(r"/lib/systemd/system/.", path)}
    assert units == {
        "pvedrbdstor.service",
        "pvedrbdstor.socket",
        "pvedrbdstor-boot.service",
        "pvedrbdstor-bringup@.service",
        "pvedrbdstor-fence.service",
        "pvedrbdstor-metadata.service",
        "pvedrbdstor-metadata.timer",
        "pvedrbdstor-mirrors.service",
        "pvedrbdstor-vendor-units.service",
        "pvedrbdstor-verify@.service",
        "pvedrbdstor-rejoin@.service",
        "pvedrbdstor-verify@.timer",
    }


def test_the_package_has_no_tests_and_no_sources_of_the_extension(package: Path) -> None:
    assert not [path for path in contents(package) if re.search(r"/tests?/|\.[ch]$|csrc", path)]


def test_the_package_has_the_manual_and_not_what_builds_it(package: Path) -> None:
    below = [path for path in contents(package) if "/doc/pvedrbdstor/" in path]
    assert not [path for path in below if re.search(r"conf\.py|_templates|doctrees|/docs/_|\.js$|searchindex", path)]
    assert {"html/concepts.html", "html/_static/manual.css", "docs/concepts.md"} <= {
        path.partition("/doc/pvedrbdstor/")[2] for path in below
    }


def contents(package: Path) -> list[str]:
    listed = subprocess.run(
        ["dpkg-deb", "--contents", str(package)], check=True, stdout=subprocess.PIPE, text=True, timeout=60
    )
    return [line.split(maxsplit=5)[5] for line in listed.stdout.splitlines()]
