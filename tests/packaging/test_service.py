"""The units under a real systemd: the socket, the sandbox, a crash, an upgrade, a removal."""

from __future__ import annotations

import json
from pathlib import Path

from tests.packaging.machine import BootedMachine, Machine

SOCKET = "/run/pvedrbdstor/backend.sock"
ASK = """
import json, socket, sys
with socket.socket(socket.AF_UNIX) as s:
    s.settimeout(30)
    s.connect(sys.argv[1])
    method, name = sys.argv[3:] or ("status", "ha")
    storage = {"id": name, "path": sys.argv[2], "resource": "r0"}
    params = {"storage": storage, "timeout": 20, "content_dirs": []}
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    s.sendall(json.dumps(request).encode() + b"\\n")
    print(s.makefile().readline())
"""
# Linux capability numbers, <linux/capability.h>
NEEDED = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "LINUX_IMMUTABLE": 9, "NET_ADMIN": 12, "SYS_ADMIN": 21}
REFUSED = {
    "SETUID": 7,
    "SYS_MODULE": 16,
    "SYS_RAWIO": 17,
    "SYS_PTRACE": 19,
    "SYS_BOOT": 22,
    "SYS_TIME": 25,
    "MKNOD": 27,
}


def status_error(machine: Machine, path: str) -> str:
    """The kind of error a status request for a storage on ``path`` is answered with."""
    answer = json.loads(machine.run("python3", "-c", ASK, SOCKET, path).stdout)
    kind: str = answer["error"]["data"]["kind"]
    return kind


def main_pid(machine: Machine) -> int:
    """The service's first process, 0 when it does not run."""
    return int(machine.shell("systemctl show --property MainPID --value pvedrbdstor.service"))


def test_the_first_request_starts_the_service(booted: Machine) -> None:
    assert booted.shell("systemctl is-active pvedrbdstor.socket") == "active"
    assert main_pid(booted) == 0
    assert status_error(booted, "/mnt") == "NotMounted"
    assert main_pid(booted) > 0
    assert booted.run("systemctl", "is-system-running").stdout.strip() == "running"


def test_the_doctor_misses_no_unit_before_the_first_reboot(booted: Machine) -> None:
    """As docs/install.md has a newcomer look: what works at boot alone has not run yet."""
    assert booted.run("systemctl", "is-active", "pvedrbdstor-boot.service", check=False).stdout.strip() == "inactive"
    booted.write("/etc/pve/storage.cfg", "dir: local\n\tpath /var/lib/vz\n")
    said = booted.run("pvedrbdstor", "doctor", "--local", "--json", check=False).stdout
    document, _ = json.JSONDecoder().raw_decode(said[said.index("{") :])
    told = [each for each in document["findings"] if each["id"].startswith("unit-") or "units" in each["title"]]
    assert told == [], said


def test_an_activation_has_systemd_bring_the_storage_up(booted: BootedMachine) -> None:
    """Out of the service's confinement, in a unit of the storage's own; here it finds no DRBD to bring up, and says so."""
    error = json.loads(booted.run("python3", "-c", ASK, SOCKET, "/mnt/pve/my-ha", "activate_storage", "my-ha").stdout)
    record = json.loads(booted.shell("cat /run/pvedrbdstor/bringup/my-ha.json"))
    assert error["error"]["message"] == record["error"]["message"]
    assert "my-ha" in record["error"]["message"]
    unit = "pvedrbdstor-bringup@my-ha.service"
    assert record["error"]["message"] in booted.shell(
        f"journalctl --sync; journalctl --no-pager --output cat --unit {unit}"
    )
    assert booted.shell("systemctl is-active pvedrbdstor-mirrors.service") == "active"


def test_only_root_may_ask(booted: Machine) -> None:
    assert booted.shell(f"stat --format '%a %U:%G' {SOCKET}") == "600 root:root"


def test_mounts_of_the_host_come_and_go_in_the_running_service(booted: Machine) -> None:
    path = "/mnt/pve/ha"
    booted.run("mkdir", "-p", path)
    assert status_error(booted, path) == "NotMounted"
    booted.run("mount", "-t", "tmpfs", "later", path)
    assert status_error(booted, path) == "WrongMount"
    booted.run("umount", path)
    assert status_error(booted, path) == "NotMounted"


def test_a_mount_is_writable_to_the_service_wherever_it_lies_and_whichever_came_first(booted: Machine) -> None:
    """No setting may freeze a storage read-only: /home, /tmp and /root are mount points like any other."""
    paths = ["/mnt/first", "/home/first", "/tmp/first", "/root/first", "/srv/first"]
    for path in paths:
        booted.shell(f"mkdir -p {path}; mount -t tmpfs first {path}")
    status_error(booted, "/mnt")
    for path in paths:
        later = path.replace("first", "later")
        booted.shell(f"mkdir -p {later}; mount -t tmpfs later {later}")
        for seen in (path, later):
            line = booted.shell(f"grep ' {seen} ' /proc/{main_pid(booted)}/mountinfo")
            assert line.split()[5].startswith("rw"), line


def test_the_service_is_confined(booted: Machine) -> None:
    status_error(booted, "/mnt")
    lines = booted.shell(f"cat /proc/{main_pid(booted)}/status").splitlines()
    state = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    capabilities = int(state["CapEff"], 16)
    assert {name for name, bit in NEEDED.items() if not capabilities >> bit & 1} == set()
    assert {name for name, bit in REFUSED.items() if capabilities >> bit & 1} == set()
    assert state["NoNewPrivs"] == "1"
    assert state["Seccomp"] == "2"


def test_a_killed_service_is_back_for_the_next_request(booted: Machine) -> None:
    status_error(booted, "/mnt")
    before = main_pid(booted)
    booted.shell(f"kill -KILL {before}")
    assert status_error(booted, "/mnt") == "NotMounted"
    assert main_pid(booted) not in (0, before)


def test_an_upgrade_refuses_no_caller_and_renews_the_service(booted: Machine, newer_package: Path) -> None:
    status_error(booted, "/mnt")
    before = main_pid(booted)
    booted.write("/root/ask.py", ASK)
    booted.shell(
        f"(while [ ! -e /root/done ]; do python3 /root/ask.py {SOCKET} /mnt >>/root/answers 2>&1"
        " || echo refused >>/root/answers; done; touch /root/ended) >/dev/null 2>&1 &"
    )
    booted.run("dpkg", "--install", booted.copy_in(newer_package))
    booted.shell("touch /root/done; until [ -e /root/ended ]; do sleep 0.1; done")
    answers = booted.shell("grep -v '^$' /root/answers").splitlines()
    assert len(answers) > 3
    assert [answer for answer in answers if "NotMounted" not in answer] == []
    assert main_pid(booted) not in (0, before)


def test_an_upgrade_starts_no_service_that_did_not_run(booted: Machine, newer_package: Path) -> None:
    booted.run("dpkg", "--install", booted.copy_in(newer_package))
    assert main_pid(booted) == 0
    assert status_error(booted, "/mnt") == "NotMounted"


def guard_pid(machine: Machine) -> int:
    return int(machine.shell("systemctl show --property MainPID --value pvedrbdstor-fence.service"))


def test_the_guard_runs_from_the_installation_on_and_no_upgrade_ends_it(booted: Machine, newer_package: Path) -> None:
    """A guard that has just begun has seen too little to let its node go on."""
    before = guard_pid(booted)
    assert before > 0
    booted.run("dpkg", "--install", booted.copy_in(newer_package))
    assert guard_pid(booted) == before
    assert booted.shell("systemctl is-active pvedrbdstor-fence.service") == "active"
    assert f"process {before}" in booted.run("pvedrbdstor", "fencing", "status", check=False).stdout


def test_a_killed_guard_is_back_at_once(booted: Machine) -> None:
    before = guard_pid(booted)
    booted.shell(f"kill -KILL {before}")
    unit = "pvedrbdstor-fence.service"
    another = f"pid=$(systemctl show --property MainPID --value {unit}); [ $pid != 0 ] && [ $pid != {before} ]"
    # systemd may not have noticed yet: then the unit is still active, with the process that was killed
    booted.shell(f"until {another} && systemctl is-active -q {unit}; do sleep 0.1; done", 20)


def test_the_guard_survives_a_lack_of_memory_and_asks_for_no_mount_namespace(booted: Machine) -> None:
    pid = guard_pid(booted)
    setting = booted.shell("systemctl show --property OOMScoreAdjust --value pvedrbdstor-fence.service")
    assert setting == "-1000"  # which a container may not grant
    assert booted.shell(f"readlink /proc/{pid}/ns/mnt") == booted.shell("readlink /proc/1/ns/mnt")


def test_a_removal_ends_socket_and_service(booted: Machine) -> None:
    status_error(booted, "/mnt")
    assert main_pid(booted) > 0
    booted.run("apt-get", "remove", "--yes", "pvedrbdstor")
    assert booted.run("test", "-e", SOCKET, check=False).returncode == 1
    assert "pvedrbdstor" not in booted.shell(
        "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -v grep || true"
    )
    assert booted.run("systemctl", "is-system-running").stdout.strip() == "running"
