"""The dialog in Proxmox's web interface comes with the package, outlives every upgrade, and goes with it.

dpkg, triggers and maintainer scripts are real; pve-manager's double brings a template of its own. What gui-hook does with a
text is in tests/gui_hook.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gui_hook.power import build_switch, switch
from tests.packaging.conftest import NEWER
from tests.packaging.doubles import ANCHOR, PAGE, TEMPLATE, pve_manager
from tests.packaging.machine import Machine
from tests.packaging.repack import repack, with_another_dialog, without_the_dialog
from tests.packaging.test_remove import OURS, STORAGE_CFG, mount_cluster_files

HOOK = "/usr/lib/pvedrbdstor/gui-hook"
SCRIPT = "/usr/share/pve-manager/js/drbdocfs2.js"
NEWER_PAGE = PAGE.replace("a double", "a newer double")
LOG = "/root/calls"
FOREIGN = '<script src="/pve2/js/drbdocfs2.js"></script>\n'


def page(machine: Machine) -> str:
    return machine.run("cat", TEMPLATE).stdout


def wanted(machine: Machine, original: str = PAGE) -> str:
    """The template as it must be while the package is installed: one line more, with the checksum of our script."""
    version = machine.shell(f"sha256sum {SCRIPT}")[:12]
    (ours,) = [line for line in page(machine).splitlines(keepends=True) if "drbdocfs2.js" in line]
    assert f'src="/pve2/js/drbdocfs2.js?ver={version}"' in ours
    return original.replace(ANCHOR, ANCHOR + ours)


def folder(machine: Machine) -> list[str]:
    return machine.shell("ls -A /usr/share/pve-manager").split()


def status(machine: Machine, package: str = "pvedrbdstor") -> str:
    return machine.shell(f"dpkg-query --show --showformat '${{db:Status-Status}}' {package} || true")


@pytest.fixture
def upgrade_proxmox(tmp_path: Path) -> Callable[..., str]:
    """Installs a newer pve-manager with a given page by dpkg, which runs triggers; what dpkg said."""
    versions = iter(range(1, 99))

    def run(machine: Machine, text: str, *before: str, check: bool = True) -> str:
        deb = pve_manager(text, f"{next(versions)}~double").build(tmp_path)
        return machine.run(*before, "dpkg", "--install", machine.copy_in(deb), check=check).stdout

    return run


Upgrade = Callable[..., str]


def test_the_installation_adds_the_dialog(installed: Machine) -> None:
    assert page(installed) == wanted(installed)
    assert installed.shell(f"stat --format '%a %U:%G' {TEMPLATE}") == "644 root:root"
    assert folder(installed) == ["index.html.tpl", "js", "templates"]
    assert installed.run(HOOK, "status").stdout.startswith("enabled: ")


def test_the_price_is_that_dpkg_calls_the_template_changed(installed: Machine) -> None:
    """docs/install.md tells so; nothing else of pve-manager is."""
    said = installed.run("dpkg", "--verify", "pve-manager", check=False).stdout
    assert said.split() == ["??5??????", TEMPLATE]
    assert installed.run("dpkg", "--verify", "pvedrbdstor").stdout == ""


def test_a_newer_pve_manager_gets_the_line_in_the_same_run_of_dpkg(
    installed: Machine, upgrade_proxmox: Upgrade
) -> None:
    upgrade_proxmox(installed, NEWER_PAGE)
    assert page(installed) == wanted(installed, NEWER_PAGE)
    assert status(installed) == "installed"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(NEWER_PAGE.replace(ANCHOR, ""), "0 places", id="anchor gone"),
        pytest.param(NEWER_PAGE.replace(ANCHOR, ANCHOR * 2), "2 places", id="anchor twice"),
        pytest.param(NEWER_PAGE.replace(ANCHOR, ANCHOR + FOREIGN), "another line", id="a foreign second tag"),
    ],
)
def test_a_newer_template_that_is_not_understood_stays_as_it_is(
    installed: Machine, upgrade_proxmox: Upgrade, text: str, reason: str
) -> None:
    said = upgrade_proxmox(installed, text)
    assert reason in said
    assert page(installed) == text
    assert status(installed) == status(installed, "pve-manager") == "installed"
    upgrade_proxmox(installed, PAGE)  # the next one is understood again
    assert page(installed) == wanted(installed)


def test_without_a_web_interface_nothing_is_said_and_it_is_added_when_one_comes(
    machine: Machine, install: Callable[[Machine], str], upgrade_proxmox: Upgrade
) -> None:
    machine.run("dpkg", "--purge", "pve-manager")
    assert "gui-hook" not in install(machine)
    upgrade_proxmox(machine, NEWER_PAGE)
    assert page(machine) == wanted(machine, NEWER_PAGE)
    machine.run("dpkg", "--purge", "pve-manager")
    assert folder(machine) == ["js", "templates"]


def test_a_template_that_cannot_be_replaced_fails_neither_installation_nor_removal(
    machine: Machine, install: Callable[[Machine], str]
) -> None:
    machine.shell(f"mv {TEMPLATE} /root/real; ln -s /root/real {TEMPLATE}")
    said = install(machine)
    assert "gui-hook enable' tries again" in said
    assert status(machine) == "installed"
    said = machine.run("apt-get", "remove", "--yes", "pvedrbdstor").stdout
    assert "does no harm" in said
    assert machine.run("cat", "/root/real").stdout == PAGE


def test_an_upgrade_that_changes_the_dialog_changes_the_line(installed: Machine, package: Path, tmp_path: Path) -> None:
    before = wanted(installed)
    later = repack(package, tmp_path, "98", with_another_dialog)
    installed.run("dpkg", "--install", installed.copy_in(later))
    assert page(installed) == wanted(installed) != before


def test_an_upgrade_from_a_version_without_the_dialog_adds_it(
    machine: Machine, package: Path, install: Callable[[Machine], str], tmp_path: Path
) -> None:
    older = repack(package, tmp_path, "0.0.9", without_the_dialog)
    machine.run("apt-get", "install", "--yes", "--no-install-recommends", machine.copy_in(older))
    assert page(machine) == PAGE
    assert machine.run("test", "-e", HOOK, check=False).returncode == 1
    install(machine)
    assert page(machine) == wanted(machine)


@pytest.mark.parametrize("action", ["remove", "purge"])
def test_with_the_package_the_line_goes_and_the_template_is_proxmoxs_byte_by_byte(
    installed: Machine, action: str
) -> None:
    installed.run("apt-get", action, "--yes", "pvedrbdstor")
    assert page(installed) == PAGE
    assert installed.run("dpkg", "--verify", "pve-manager").stdout == ""
    assert folder(installed) == ["index.html.tpl", "js"]


def test_a_refused_removal_leaves_the_dialog(installed: Machine) -> None:
    mount_cluster_files(installed)
    installed.write(STORAGE_CFG, OURS)
    assert installed.run("apt-get", "remove", "--yes", "pvedrbdstor", check=False).returncode != 0
    assert page(installed) == wanted(installed)


def test_what_each_call_of_the_maintainer_scripts_does_with_the_line(installed: Machine) -> None:
    """Policy's calls that no test above makes; also on another root (DPKG_ROOT), which leaves this one alone."""
    enabled = page(installed)
    installed.shell("mkdir -p /srv/other/usr/share /srv/other/usr/lib /srv/other/var/lib")
    for what in ("/usr/share/pve-manager", "/usr/lib/pvedrbdstor", "/var/lib/dpkg"):  # the last one for py3clean
        installed.run("cp", "-a", what, f"/srv/other{what}")
    for root in ("", "/srv/other"):
        calls = [
            ("prerm", "upgrade", NEWER, enabled),
            ("prerm", "failed-upgrade", "0.0.9", enabled),
            ("prerm", "deconfigure", "in-favour", PAGE),
            ("postinst", "abort-deconfigure", "in-favour", enabled),
            ("prerm", "deconfigure", "in-favour", PAGE),
            ("postinst", "abort-remove", "", enabled),
            ("prerm", "deconfigure", "in-favour", PAGE),
            ("postinst", "abort-upgrade", NEWER, enabled),
            ("prerm", "deconfigure", "in-favour", PAGE),
            ("postinst", "triggered", TEMPLATE, enabled),
        ]
        for script, action, argument, expected in calls:
            command = ["sh", f"/var/lib/dpkg/info/pvedrbdstor.{script}", action, argument]
            installed.run("env", f"DPKG_ROOT={root}", *command)
            assert installed.run("cat", f"{root}{TEMPLATE}").stdout == expected, (root, script, action)
            assert root == "" or page(installed) == enabled


def test_the_line_comes_back_while_python_is_broken(installed: Machine, upgrade_proxmox: Upgrade) -> None:
    """As in the middle of an upgrade of Debian: the trigger's part needs perl-base alone."""
    installed.shell("chmod 000 /usr/bin/python3.*")
    upgrade_proxmox(installed, NEWER_PAGE)
    assert page(installed) == wanted(installed, NEWER_PAGE)


def test_two_hooks_at_once_leave_one_line(installed: Machine, upgrade_proxmox: Upgrade) -> None:
    """An administrator's, again and again, beside dpkg's own: one that finds the lock held for too long says so and ends, and is run again."""
    installed.shell(
        f"(set +e; while [ ! -e /root/done ]; do {HOOK} enable; {HOOK} disable; done >/root/said 2>&1; touch /root/ended)"
        " >/dev/null 2>&1 &"
    )
    for text in (NEWER_PAGE, PAGE, NEWER_PAGE):
        upgrade_proxmox(installed, text)
    installed.shell("touch /root/done; until [ -e /root/ended ]; do sleep 0.1; done")
    installed.run(HOOK, "enable")
    assert page(installed) == wanted(installed, NEWER_PAGE)
    assert folder(installed) == ["index.html.tpl", "js", "templates"]


@pytest.fixture
def power(installed: Machine, tmp_path: Path) -> Callable[[int], list[str]]:
    """What comes before a command so that the power is cut at gui-hook's call number N: all of the command dies."""
    library = installed.copy_in(build_switch(tmp_path))

    def before(at: int) -> list[str]:
        installed.shell(f"rm -f {LOG}")
        settings = {**switch(library, LOG, at), "POWER_CUT_ALL": "1"}
        # a session of its own: the test's processes are not part of what dies
        return ["setsid", "--wait", "env", *(f"{name}={value}" for name, value in settings.items())]

    return before


def cuts(machine: Machine) -> int:
    """The calls that gui-hook got to."""
    return len(machine.shell(f"cat {LOG} || true").splitlines())


def repaired(machine: Machine, original: str) -> bool:
    """Whether what the administrator does after the power cut makes all of it right."""
    machine.run("dpkg", "--configure", "--pending")
    whole = status(machine) == status(machine, "pve-manager") == "installed"
    return (
        whole
        and page(machine) == wanted(machine, original)
        and folder(machine) == ["index.html.tpl", "js", "templates"]
    )


def test_a_power_cut_while_a_newer_template_gets_the_line(
    installed: Machine, upgrade_proxmox: Upgrade, power: Callable[[int], list[str]]
) -> None:
    """At each step of it; the machine comes back with the template or with the one that is wanted, and is repaired."""
    for at in range(1, 30):
        text = PAGE.replace("a double", f"double {at}")
        upgrade_proxmox(installed, text, *power(at), check=False)
        if cuts(installed) < at:
            break
        assert page(installed) == text or page(installed) == wanted(installed, text)
        assert repaired(installed, text)
    assert at > 7, "gui-hook has as many steps; tests/gui_hook names them"


@pytest.mark.parametrize("at", [1, *(pytest.param(n, marks=pytest.mark.soak) for n in range(2, 9))])
def test_a_power_cut_in_the_installation_and_in_the_removal(
    installed: Machine, package: Path, power: Callable[[int], list[str]], at: int
) -> None:
    deb = f"/root/{package.name}"
    installed.run(HOOK, "disable")
    installed.run(*power(at), "dpkg", "--install", deb, check=False)
    cut = cuts(installed) >= at
    assert (status(installed) != "installed") == cut
    assert page(installed) == PAGE or page(installed) == wanted(installed)
    assert repaired(installed, PAGE)

    installed.run(*power(at), "dpkg", "--remove", "pvedrbdstor", check=False)
    assert (status(installed) != "config-files") == cut
    installed.run("dpkg", "--purge", "pvedrbdstor")
    assert page(installed) == PAGE
    assert folder(installed) == ["index.html.tpl", "js"]
