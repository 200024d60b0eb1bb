"""Kernels: which one is booted next, by what proxmox-boot-tool has pinned, and which DRBD it then loads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pvedrbdstor import command
from pvedrbdstor.doctor import kernels
from pvedrbdstor.doctor.checks import examine
from pvedrbdstor.doctor.facts import Look
from pvedrbdstor.doctor.finding import Finding
from tests.doctor.breaking import KERNELS, E, H, W, kernel
from tests.doctor.world import broken

NEW, OLD, RUNNING = "6.99.0-1-pve", "5.15.1-1-pve", os.uname().release
TO_PIN = ("proxmox-boot-tool kernel pin RELEASE", "proxmox-boot-tool refresh")


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node's folders, in which only modinfo is pretended: it tells what is in a file of each kernel's."""

    def modinfo(argv: list[str], **_: object) -> command.Result:
        assert argv[:2] == ["modinfo", "-k"] and argv[3:] == ["-F", "version", "drbd"]
        return command.Result(0, (tmp_path / argv[2] / "version").read_text(), "")

    monkeypatch.setattr(command, "run", modinfo)
    monkeypatch.setattr(kernels, "BOOT", str(tmp_path))
    monkeypatch.setattr(kernels, "MODULES", str(tmp_path))
    monkeypatch.setattr(kernels, "PIN", str(tmp_path / "pin"))
    monkeypatch.setattr(kernels, "PIN_ONCE", str(tmp_path / "once"))
    return tmp_path


def install(boot: Path, release: str, drbd: str) -> None:
    (boot / f"vmlinuz-{release}").touch()
    (boot / release).mkdir()
    (boot / release / "version").write_text(f"{drbd}\n")
    (boot / release / "modules.dep").write_text("".join(f"updates/dkms/{name}.ko:\n" for name in kernels.NEEDED))


def told() -> dict[str, dict[str, Any]]:
    return {str(each["release"]): each for each in kernels.installed_kernels()}


def the_only(look: Look) -> Finding:
    (finding,) = examine(look)
    return finding


def test_of_the_running_kernel_both_modules_are_told(boot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That which is loaded, and that which DKMS has put beside it meanwhile."""
    install(boot, RUNNING, "9.2.14")
    monkeypatch.setattr(kernels, "_loaded", lambda module: True)
    monkeypatch.setattr(kernels, "_line", lambda path: "8.4.11")
    running = told()[RUNNING]
    assert (running["drbd"], running["drbd_on_disk"], running["missing"]) == ("8.4.11", "9.2.14", [])
    monkeypatch.setattr(kernels, "_loaded", lambda module: False)
    assert told()[RUNNING]["drbd"] == "9.2.14"


def test_the_running_kernel_need_not_have_modules_on_the_disk(boot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_loaded", lambda module: True)
    assert told()[RUNNING]["drbd_on_disk"] is None


def test_what_is_pinned_is_told(boot: Path) -> None:
    """By the first line of either file; also beyond those looked at for being the newest, and never without an image."""
    for at in range(kernels._MOST + 2):
        install(boot, f"6.{at}.0-1-pve", "8.4.11")
    assert not any(each["pinned"] or each["pinned_once"] for each in told().values()) and "6.0.0-1-pve" not in told()
    (boot / "pin").write_text("6.0.0-1-pve\n6.5.0-1-pve\n")
    (boot / "once").write_text("6.13.0-1-pve\n")
    found = told()
    assert [name for name, each in found.items() if each["pinned"]] == ["6.0.0-1-pve"]
    assert [name for name, each in found.items() if each["pinned_once"]] == ["6.13.0-1-pve"]
    (boot / "pin").write_text(f"{NEW}\n")
    (boot / "once").write_text("")
    assert NEW not in told() and not any(each["pinned"] or each["pinned_once"] for each in told().values())


def test_dkms_building_into_the_running_kernel_is_told_before_its_next_start() -> None:
    finding = the_only(broken({"kernels": [{**KERNELS[0], "drbd_on_disk": "9.2.14"}]}))
    assert finding.id == "kernel-drbd-generation" and finding.commands == ("apt remove drbd-dkms",)
    assert "The next start of the running kernel 6.1.176 of nodea loads DRBD 9; DRBD 8.4 is running" in finding.title
    assert the_only(broken({"kernels": [{**KERNELS[0], "drbd_on_disk": "8.3.16"}]})).id == "kernel-drbd-generation"
    for same in ("8.4.12", None, 7):
        assert examine(broken({"kernels": [{**KERNELS[0], "drbd_on_disk": same}]})) == ()


def test_where_8_4_would_take_the_place_of_9_it_is_built_again() -> None:
    here = {**KERNELS[0], "release": "6.8.12-4-pve", "drbd": "9.2.14", "drbd_on_disk": "8.4.11"}
    finding, _ = examine(broken({"kernels": [here]}, on="ab"))
    assert finding.commands == (
        "apt install proxmox-headers-6.8.12-4-pve drbd-dkms",
        "dkms autoinstall -k 6.8.12-4-pve",
    )


@pytest.mark.parametrize(
    ("release", "headers"),
    [(NEW, f"proxmox-headers-{NEW}"), ("6.99.0-18-amd64", "linux-headers-6.99.0-18-amd64")],
    ids=["Proxmox VE", "Debian"],
)
def test_dkms_is_given_the_headers_first(release: str, headers: str) -> None:
    """Without, it passes the kernel over, which is why it most often has."""
    built = (f"apt install {headers}", f"dkms autoinstall -k {release}")
    finding = the_only(broken(kernel(release, missing=["drbd"])))
    assert finding.commands[2:5] == ("dkms status", *built)
    finding, _ = examine(broken(kernel(release, {"drbd": "9.2.14", "drbd_on_disk": "9.2.14"}), on="ab"))
    assert finding.id == "kernel-drbd-generation" and finding.commands == built
    here = {**KERNELS[0], "release": release, "missing": ["drbd"]}
    assert the_only(broken({"kernels": [here]})).commands[-2:] == built


PINNED, ONCE = {"pinned": True}, {"pinned_once": True}


@pytest.mark.parametrize(
    ("release", "running", "other", "severity", "when", "commands"),
    [
        (NEW, {}, {}, W, "the next reboot may take it", TO_PIN),
        (NEW, PINNED, {}, H, "no reboot takes it while 6.1.176 is pinned", TO_PIN[1:]),
        (NEW, ONCE, {}, W, "6.1.176 is pinned for the next reboot alone, and the one after that may take it", TO_PIN),
        (NEW, {}, PINNED, E, "the next reboot takes it, as it is pinned", TO_PIN),
        (OLD, {}, PINNED, E, "the next reboot takes it, as it is pinned", TO_PIN),
        (OLD, ONCE, PINNED, E, "the reboot after the next takes it, as it is pinned", TO_PIN),
        *[
            (
                release,
                running,
                ONCE,
                E,
                "the next reboot takes it, as it is pinned for that one",
                ("proxmox-boot-tool kernel unpin --next-boot", *TO_PIN),
            )
            for release in (NEW, OLD)
            for running in ({}, PINNED)
        ],
        (OLD, {}, {}, H, "it is older than the running one, and only of use to go back to", TO_PIN),
        (OLD, PINNED, {}, H, "it is older than the running one, and only of use to go back to", TO_PIN[1:]),
    ],
)
def test_a_kernel_without_modules_is_as_grave_as_it_is_sure_to_be_booted(
    release: str, running: dict[str, object], other: dict[str, object], severity: int, when: str, commands: object
) -> None:
    finding = the_only(broken(kernel(release, running, missing=["ocfs2"], **other)))
    assert (finding.id, finding.severity) == ("kernel-no-module", severity)
    assert finding.meaning == f"With it the storage does not come up; {when}."
    assert finding.commands[2:] == commands


@pytest.mark.parametrize(
    ("release", "running", "other", "severity"),
    [(NEW, {}, {}, W), (NEW, PINNED, {}, H), (NEW, ONCE, {}, W), (NEW, {}, PINNED, W), (OLD, {}, PINNED, W)],
)
def test_another_generation_is_told_of_each_kernel_that_may_be_booted(
    release: str, running: dict[str, object], other: dict[str, object], severity: int
) -> None:
    finding = the_only(broken(kernel(release, running, drbd="9.2.14", **other)))
    assert (finding.id, finding.severity) == ("kernel-drbd-generation", severity)


@pytest.mark.parametrize("running", [{}, PINNED])
def test_nothing_is_told_of_the_generation_of_an_older_kernel_that_is_not_pinned(running: dict[str, object]) -> None:
    assert examine(broken(kernel(OLD, running, drbd="9.2.14"))) == ()
