"""What the doctor tells of disk, journals, units, firewall, link and kernel: each in its variants, and where it has to keep still."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from pvedrbdstor.doctor.checks import examine
from pvedrbdstor.doctor.facts import Look
from tests.doctor.breaking import (
    APART,
    PROC,
    image,
    superblock,
    unit,
    with_disk_option,
)
from tests.doctor.world import (
    HA,
    broken,
    drive,
    node,
    over,
)


def test_no_order_of_writes_at_all_is_told_of_either_generation() -> None:
    options = with_disk_option("disk-flushes no;\n disk-drain no")
    for there in (PROC.replace("wo:f", "wo:n"), "version: 9.2.12 (api:2/proto:86-122)\n"):
        (finding,) = (
            found for found in examine(broken({"proc_drbd": there, **options})) if found.id == "drbd-write-ordering"
        )
        assert "'none'" in finding.title


def test_draining_where_flushes_are_switched_off_is_one_finding_not_two() -> None:
    (finding,) = examine(broken({"proc_drbd": PROC.replace("wo:f", "wo:d"), **with_disk_option("disk-flushes no")}))
    assert finding.id == "drbd-flushes-off"


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ({"UnitFileState": "masked", "LoadState": "masked"}, "systemctl unmask pvedrbdstor-fence.service"),
        ({"LoadState": "not-found", "ActiveState": "inactive"}, "apt install --reinstall pvedrbdstor"),
        ({"ActiveState": "inactive"}, "systemctl start pvedrbdstor-fence.service"),
        ({"ActiveState": "failed"}, "journalctl -u pvedrbdstor-fence.service -n 50"),
    ],
)
def test_a_unit_that_does_not_do_its_work(words: dict[str, str], remedy: str) -> None:
    (finding,) = examine(broken(unit("pvedrbdstor-fence.service", **words)))
    assert finding.commands[0] == remedy and "cannot decide" in finding.meaning


def test_where_there_is_no_systemd_nothing_is_said_of_units() -> None:
    assert examine(broken({"units": None}, on="ab")) == ()


@pytest.mark.parametrize(
    ("bits", "told"),
    [
        ({"incompat": 5, "ro_compat": 0}, "async-commit"),
        ({"incompat": 0x11, "ro_compat": 0}, "checksums (v3)"),
        ({"incompat": 0x101, "ro_compat": 2}, "bits 0x200000100"),
    ],
)
def test_what_fsck_would_refuse_in_a_journal(bits: dict[str, int], told: str) -> None:
    (finding,) = examine(broken(superblock(journal_features=[None, bits])))
    assert finding.title.endswith(told) and "slot 1" in finding.title
    assert ("journal_async_commit" in finding.remedy) == (told == "async-commit")


def test_a_file_system_with_features_nobody_here_knows() -> None:
    features = [*node("a").mapping("superblock:ha")["features"], "unknown-incompat-0x40000"]  # type: ignore[misc]
    (finding,) = examine(broken(superblock(features=features)))
    assert finding.id == "fsck-cannot-replay" and "0x40000" in finding.title


def test_a_fsck_that_leaves_out_the_end_of_a_journal() -> None:
    (finding,) = examine(broken({"fsck": "fsck.ocfs2 1.8.4"}, on="b"))
    assert finding.id == "fsck-cannot-replay" and finding.nodes == ("nodeb",)


def test_a_guest_that_is_paused_when_the_storage_is_full_has_no_hint() -> None:
    sparse = {"images": [{**image(100, "vm-100-disk-0.raw"), "used": 0}]}
    for options in ({"cache": "writeback"}, {"werror": "stop"}):
        found = examine(broken({"guests:ha": {"drives": [drive(**options)]}, "volumes:ha": sparse}))
        assert "guest-full-errors" not in {finding.id for finding in found}


def test_the_rules_that_are_told_open_the_firewall() -> None:
    """Those of DRBD and those of OCFS2, of both nodes at once, also where out is shut."""
    shut = "[OPTIONS]\nenable: 1\npolicy_out: DROP\n"
    found = examine(broken({"firewall": {"cluster": shut}}, on="ab"))
    assert {finding.id for finding in found} == {"firewall-closed"} and len(found) == 4
    rules = {rule for finding in found for rule in re.findall("`([^`]+)`", finding.remedy)}
    assert len(rules) == 4
    text = f"{shut}[RULES]\n" + "\n".join(rules)
    assert examine(broken({"firewall": {"cluster": text}}, on="ab")) == ()


def test_nothing_is_said_of_the_port_while_the_other_node_may_be_away() -> None:
    def look(answers: dict[str, bool], **more: object) -> Look:
        apart = [over(node(letter), {**APART, "answers": answers, **more}) for letter in "ab"]
        return Look(apart[0], (apart[1],), {}, (HA,))

    assert "drbd-port-blocked" not in {finding.id for finding in examine(look({"r0": False}))}
    alone = APART["events"].replace("Connecting", "StandAlone")  # type: ignore[attr-defined]
    assert "drbd-port-blocked" not in {finding.id for finding in examine(look({"r0": True}, events=alone))}
    assert "drbd-port-blocked" not in {finding.id for finding in examine(broken(APART))}


def test_a_link_is_measured_against_the_slower_disk_and_by_the_slowest_member() -> None:
    assert examine(broken({"speeds": {"eth1": "1000"}, "disk_speeds": {"r0": 200_000_000}})) == ()
    assert examine(broken({"speeds": {"eth1": "1000"}, "disk_speeds": {"r0": None}})) == ()
    (finding,) = examine(broken({"disk_speeds": {"r0": 4_000_000_000}}, on="ab"))
    assert "carries 1250 MB/s" in finding.title and "reads 4000 MB/s" in finding.title


@pytest.mark.parametrize(
    ("release", "mended"),
    [
        ("7.1.0 #1", True),
        ("7.0.9 #1", False),
        ("6.1.176 #1", True),
        ("6.1.175 #1", True),
        ("6.1.174 #1", False),
        ("6.1.0-44-amd64 #1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-07-01)", True),
        ("6.1.0-43-amd64 #1 SMP PREEMPT_DYNAMIC Debian 6.1.170-1 (2026-05-01)", False),
        ("6.12.86+deb13-amd64 #1 SMP Debian 6.12.86-1", True),
        ("6.12.85 #1", False),
        ("6.12.900-1-pve #1", False),  # Proxmox numbers its own
        ("6.14.11-4-pve #1", False),
    ],
)
def test_a_kernel_with_the_fix_of_a_stable_series_is_not_called_faulty(release: str, mended: bool) -> None:
    found = examine(broken({"release": release}, on="ab", storage=replace(HA, preallocation="falloc")))
    assert {finding.id for finding in found} == (set() if mended else {"fault-ocfs2-credits"})


def test_the_rules_go_where_the_nodes_own_come_first() -> None:
    shut, host = "[OPTIONS]\nenable: 1\n", "[RULES]\nIN DROP -p tcp\n"
    found = examine(broken({"firewall": {"cluster": shut, "host": host}}))
    assert {finding.id for finding in found} == {"firewall-closed"}
    assert all("/etc/pve/nodes/nodea/host.fw, which comes first" in finding.remedy for finding in found)
    rules = "\n".join(rule for finding in found for rule in re.findall("`([^`]+)`", finding.remedy))
    assert examine(broken({"firewall": {"cluster": shut, "host": host.replace("[RULES]", f"[RULES]\n{rules}")}})) == ()


def test_scattered_space_is_told_also_where_little_of_it_is_free() -> None:
    found = examine(broken(superblock(free=2 << 30, largest_free=1 << 20)))
    assert {finding.id for finding in found} == {"ocfs2-full", "ocfs2-scattered"}
    assert [finding.id for finding in examine(broken(superblock(free=1 << 20, largest_free=1 << 20)))] == ["ocfs2-full"]


def test_flushes_that_the_kernel_would_drop_are_no_loss() -> None:
    """As of a controller with a battery, which tells the kernel that it has no cache to flush."""
    off = with_disk_option("disk-flushes no;\n md-flushes no")
    for cache, told in {"write back": True, "write through": False, None: True}.items():
        found = {finding.id for finding in examine(broken({**off, "write_caches": {"r0/0": cache}}))}
        assert ("drbd-flushes-off" in found) is told
