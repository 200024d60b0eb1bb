"""What `pvedrbdstor doctor` tells of a mode of QEMU that a check of the write path found failing, cleared by doing what its remedy says.

Proxmox's `qm set` is not in the lab: a stand-in does to the guest's configuration what that does.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import storage
from tests.lab.cluster import Cluster
from tests.lab.doctoring import GUESTS, found_by, prepare, told
from tests.lab.formation import STORAGE, on_each
from tests.lab.node import Node
from tests.lab.test_doctor_guests import PROGRAMS, STAND_INS, write_program
from tests.lab.verifying import MIB

REPRODUCES = {"write-path-failed"}
RECORD = f"/var/lib/pvedrbdstor/verify/write-path/{STORAGE}.json"
CONF = f"{GUESTS}/100.conf"
CHECK = f"pvedrbdstor verify {STORAGE} --write-path"
DAMAGES = """{real} "$@" || exit
case "$*" in *"-t writeback -i threads"*) for file; do :; done; printf X | dd of="$file" conv=notrunc status=none ;; esac"""
"""A QEMU that writes something else than it was given, in one mode."""


@pytest.fixture
def never_checked(pair: Cluster) -> Iterator[Cluster]:
    """The small cluster as an administrator should have it; its write path was never checked."""
    prepare(pair)
    on_each(pair.nodes, lambda node: node.run(f"rm -f {RECORD}"))
    on_each(pair.nodes, lambda node: write_program(node, f"{PROGRAMS}/qm", STAND_INS["qm"]))
    yield pair
    on_each(pair.nodes, lambda node: node.run(f"rm -f {RECORD} {CONF}"))
    storage.free_all(pair.a)


def damage(node: Node) -> str:
    """Until mend(): where its qemu-io is."""
    path = node.run("command -v qemu-io").strip()
    node.run(f"mv {path} {path}.kept")
    write_program(node, path, DAMAGES.format(real=f"{path}.kept"))
    return path


def mend(node: Node, path: str) -> None:
    node.run(f"mv {path}.kept {path}")


@pytest.mark.soak
def test_a_mode_that_failed_is_told_until_no_disk_uses_it_and_a_check_found_it_right(never_checked: Cluster) -> None:
    a, b = never_checked.nodes
    volid = storage.alloc(a, 100, MIB)
    line = f"scsi0: {volid},aio=threads,cache=writeback"
    on_each(never_checked.nodes, lambda node: node.run(f"echo '{line}' >{CONF}"))
    found_by(b)
    path = damage(a)
    try:
        result = a.sh(CHECK, 400)
        assert result.rc == 1 and "aio=threads,cache=writeback: wrong content on nodea" in result.out, result.out
        at_risk = told(found_by(b, "write-path-failed")["write-path-failed"], "error", "")
        assert (
            "aio=threads,cache=writeback gave wrong content" in at_risk["title"] and "VM 100 scsi0" in at_risk["title"]
        )
        change, dmesg, again = at_risk["commands"]
        assert change == f"qm set 100 --scsi0 {volid},cache=writeback,aio=io_uring" and (dmesg, again) == (
            "dmesg",
            CHECK,
        )
        on_each(
            never_checked.nodes, lambda node: node.run(f"PATH={PROGRAMS}:$PATH; {change}")
        )  # one configuration, for both
        nobody = told(found_by(a, "write-path-failed")["write-path-failed"], "warning", "")
        assert nobody["commands"] == [dmesg, again] and "VM 100" not in nobody["title"]
        a.run(dmesg)
    finally:
        mend(a, path)
    b.run(again, 400)
    assert found_by(a) == found_by(b), "checked by the other node"
