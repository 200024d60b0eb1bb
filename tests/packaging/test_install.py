"""What an installed package does on a clean machine."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from pvedrbdstor import __version__
from tests.packaging.base import ROOT
from tests.packaging.doubles import TRIGGERED
from tests.packaging.machine import Machine

UNITS = "/lib/systemd/system/pvedrbdstor"
EXPOSURE_LIMIT = 4.5  # of 10; systemd-analyze(1) calls this OK. The unit's comments say what keeps it above 0


def test_the_program_runs(installed: Machine) -> None:
    assert installed.shell("pvedrbdstor --version") == f"pvedrbdstor {__version__}"


def test_the_extension_loads(installed: Machine) -> None:
    where = installed.shell("python3 -c 'import pvedrbdstor._native as n; print(n.__file__)'")
    assert where == "/usr/lib/python3/dist-packages/pvedrbdstor/_native.abi3.so"


def test_every_module_is_compiled_so_that_root_writes_nothing_later(installed: Machine) -> None:
    modules = int(installed.shell("find /usr/lib/python3/dist-packages/pvedrbdstor -name '*.py' | wc -l"))
    compiled = int(installed.shell("find /usr/lib/python3/dist-packages/pvedrbdstor -name '*.pyc' | wc -l"))
    assert modules == compiled > 0


def test_a_request_without_a_service_is_answered(installed: Machine) -> None:
    answer = installed.run("pvedrbdstor", "rpc", check=False, text='{"jsonrpc":"2.0","id":1,"method":"no_such"}\n')
    assert '"code":-32601' in answer.stdout.replace(" ", "")


def test_perl_loads_the_plugin_in_taint_mode(installed: Machine) -> None:
    program = "use PVE::Storage::Custom::DRBDOCFS2Plugin; print PVE::Storage::Custom::DRBDOCFS2Plugin->type()"
    assert installed.run("perl", "-T", "-w", "-e", program).stdout == "drbdocfs2"


@pytest.mark.parametrize("module", ["Client", "Retype", "Section"])
def test_perl_loads_the_plugins_parts(installed: Machine, module: str) -> None:
    assert installed.run("perl", "-T", "-e", f"require PVE::Storage::DRBDOCFS2::{module}; print 1").stdout == "1"


def test_the_shell_completes_commands(installed: Machine) -> None:
    completed = installed.shell(
        """bash -euc '
            . /usr/share/bash-completion/completions/pvedrbdstor
            COMP_WORDS=(pvedrbdstor vol) COMP_CWORD=1 COMPREPLY=()
            _pvedrbdstor_completion pvedrbdstor vol pvedrbdstor
            echo "${COMPREPLY[@]}"
        '"""
    )
    assert completed == "volume"


def test_proxmox_is_told_to_reload(machine: Machine, install: Callable[[Machine], str]) -> None:
    assert machine.run("test", "-e", TRIGGERED, check=False).returncode == 1
    install(machine)
    assert machine.run("test", "-e", TRIGGERED, check=False).returncode == 0


def test_the_socket_is_enabled_and_the_service_waits_for_it(installed: Machine) -> None:
    assert installed.run("systemctl", "is-enabled", "pvedrbdstor.socket").stdout.strip() == "enabled"
    assert installed.run("systemctl", "is-enabled", "pvedrbdstor.service", check=False).stdout.strip() == "static"


def test_boot_and_shutdown_are_seen_to(installed: Machine) -> None:
    for unit in ("pvedrbdstor-boot.service", "pvedrbdstor-mirrors.service", "pvedrbdstor-fence.service"):
        assert installed.run("systemctl", "is-enabled", unit).stdout.strip() == "enabled"


def test_nothing_is_verified_by_itself_until_somebody_wants_it(installed: Machine) -> None:
    timer = "pvedrbdstor-verify@ha.timer"
    assert installed.run("systemctl", "is-enabled", timer, check=False).stdout.strip() == "disabled"
    installed.run("systemctl", "enable", timer)
    assert installed.run("systemctl", "is-enabled", timer).stdout.strip() == "enabled"
    installed.run("systemctl", "disable", timer)


def test_metadata_are_saved_each_week_from_the_installation_on(installed: Machine) -> None:
    assert installed.run("systemctl", "is-enabled", "pvedrbdstor-metadata.timer").stdout.strip() == "enabled"
    said = installed.run("systemctl", "is-enabled", "pvedrbdstor-metadata.service", check=False).stdout
    assert said.strip() == "static"


def test_installing_starts_nothing(installed: Machine) -> None:
    """Where systemd does not run, as in a chroot, the package's scripts start no process of their own."""
    running = installed.shell("for p in /proc/[0-9]*; do readlink $p/exe || true; done")
    assert "python" not in running
    assert "drbd" not in running


def test_systemd_understands_the_units(installed: Machine) -> None:
    kinds = [".socket", ".service"]
    kinds += [
        f"-{name}.service"
        for name in ("mirrors", "boot", "fence", "bringup@ha", "vendor-units", "verify@ha", "rejoin@ha", "metadata")
    ]
    kinds += ["-verify@ha.timer", "-metadata.timer"]
    said = installed.run("systemd-analyze", "verify", "--man=no", *(UNITS + kind for kind in kinds)).stdout
    assert "pvedrbdstor" not in said, said


def test_the_service_is_as_hardened_as_its_comments_say(installed: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    said = installed.run("systemd-analyze", "security", "--offline=true", "--no-pager", f"{UNITS}.service").stdout
    verdict = re.search(r"Overall exposure level for pvedrbdstor\.service: ([0-9.]+) (\w+)", said)
    assert verdict is not None, said
    with capsys.disabled():
        print(f"\nsystemd-analyze security pvedrbdstor.service: {verdict[1]} {verdict[2]}")
    assert float(verdict[1]) <= EXPOSURE_LIMIT


def test_the_machines_policy_for_services_is_back_after_dev_installed_something(installed: Machine) -> None:
    """tools/install.sh forbids service starts while apt works, and leaves nothing of that behind."""
    script = installed.copy_in(ROOT / "tools" / "install.sh")
    installed.write("/usr/sbin/policy-rc.d", "the administrator's own\n")
    during = installed.run(
        "bash", "-euc", f". {script}; (forbid_service_starts; cat /usr/sbin/policy-rc.d; exit 3) || echo $?"
    )
    assert during.stdout == "#!/bin/sh\nexit 101\n3\n"
    assert installed.shell("cat /usr/sbin/policy-rc.d; ls /usr/sbin | grep policy-rc") == (
        "the administrator's own\npolicy-rc.d"
    )


def test_the_handlers_are_there_and_ask_the_guard(installed: Machine) -> None:
    """Where none runs: unfence-peer ends at once, and fence-peer waits."""
    assert installed.shell("readlink /usr/lib/pvedrbdstor/unfence-peer") == "fence-peer"
    assert installed.run("/usr/lib/pvedrbdstor/unfence-peer", check=False).returncode == 0
    assert installed.run("timeout", "1", "/usr/lib/pvedrbdstor/fence-peer", check=False).returncode == 124


def test_the_handlers_of_a_resync_never_fail(installed: Machine) -> None:
    """DRBD would drop the connection. Where nothing can be noted as nothing is configured, too."""
    for side in ("source", "target"):
        line = f"DRBD_RESOURCE=none DRBD_VOLUME=0 DRBD_MINOR=0 /usr/lib/pvedrbdstor/before-resync-{side} && echo good"
        assert installed.shell(line).splitlines()[-1] == "good"
        noted = installed.shell("cat /var/lib/pvedrbdstor/verify/rejoin/none.0.json")
        assert f'"side": "{side}"' in noted
    installed.shell("rm -r /var/lib/pvedrbdstor/verify")


def test_the_guard_loads_without_looking_at_what_users_set(installed: Machine) -> None:
    said = installed.shell("PYTHONPATH=/nowhere python3 -I -m pvedrbdstor.fencing x 2>&1 || true")
    assert said == "usage: python3 -m pvedrbdstor.fencing [--log FILE]"


def test_debians_own_test_of_the_package_passes(installed: Machine) -> None:
    """debian/tests, as autopkgtest runs it on a machine with the package."""
    control = (ROOT / "debian" / "tests" / "control").read_text()
    assert "Test-Command: debian/tests/smoke\n" in control
    before = installed.files()
    script = installed.copy_in(ROOT / "debian" / "tests" / "smoke")
    assert "all of it loads" in installed.run("sh", script).stdout
    assert {path for path in installed.files() - before if not path.startswith("/run/")} == set()  # systemd-analyze
