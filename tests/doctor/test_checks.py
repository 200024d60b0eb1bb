"""Each finding of the catalogue out of a healthy pair that was broken in one way, and nothing else with it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from pvedrbdstor.doctor.checks import CATALOGUE, examine
from pvedrbdstor.doctor.checks.network import link
from pvedrbdstor.doctor.facts import Look
from pvedrbdstor.doctor.finding import Severity, exit_status
from pvedrbdstor.nodes import Way, copying
from tests.doctor.breaking import (
    DUMP,
    E,
    H,
    W,
    superblock,
    unread,
    verdict,
)
from tests.doctor.broken_pairs import IMPLIED, TABLE
from tests.doctor.world import (
    CONF,
    HA,
    NOW,
    addresses,
    broken,
    healthy,
    node,
    over,
)
from tests.drbd.support import FILES


def test_a_healthy_pair_has_no_findings() -> None:
    assert examine(healthy()) == ()


@pytest.mark.parametrize(("id_", "severity", "look", "nodes"), TABLE, ids=[f"{row[0]}-{row[1].word}" for row in TABLE])
def test_what_is_broken_is_found_and_nothing_else(id_: str, severity: Severity, look: Look, nodes: str) -> None:
    found = examine(look)
    assert {finding.id for finding in found} - IMPLIED.get(id_, set()) == {id_}
    finding = next(finding for finding in found if finding.id == id_)
    assert finding.severity is severity
    assert "".join(node[-1] for node in finding.nodes) == nodes
    assert exit_status([finding]) == {E: 2, W: 1, H: 0}[severity]


def test_every_finding_of_the_catalogue_is_reproduced() -> None:
    assert {row[0] for row in TABLE} == {entry.id for entry in CATALOGUE}
    reproduced = {(row[0], row[1]) for row in TABLE}
    promised = {(entry.id, severity) for entry in CATALOGUE for severity in entry.severities}
    # the verdict decides on these, with the words of its own; a snapshot's image, and a scattered old volume: below
    own = {pair for pair in promised if pair[0].startswith("mirror-")}
    assert promised - own - reproduced == {("volume-missing", W), ("ocfs2-scattered", W)}


def test_an_image_that_only_a_snapshot_names_is_a_warning() -> None:
    named = [
        {"vmid": 100, "kind": "VM", "key": "scsi0", "volume": "100/vm-100-disk-0.raw"},
        {"vmid": 100, "kind": "VM", "key": "vmstate in before", "volume": "100/vm-100-state-before.raw"},
    ]
    (finding,) = examine(broken({"guests:ha": {"named": named}}))
    assert (finding.id, finding.severity) == ("volume-missing", W)


def test_scattered_space_without_discontig_bg_is_a_warning() -> None:
    few = ["refcount", "xattr", "sparse", "unwritten", "indexed-dirs", "metaecc", "backup-super"]
    found = examine(broken(superblock(largest_free=1 << 20, features=few)))
    assert {(finding.id, finding.severity) for finding in found} == {("ocfs2-features", W), ("ocfs2-scattered", W)}


@pytest.mark.parametrize(("id_", "severity", "look", "nodes"), TABLE, ids=[f"{row[0]}-{row[1].word}" for row in TABLE])
def test_every_finding_says_what_it_means_and_what_helps(id_: str, severity: Severity, look: Look, nodes: str) -> None:
    for finding in examine(look):
        assert finding.meaning.endswith(".")
        assert not finding.title.endswith(".") and not finding.remedy.endswith(".")
        quoted = re.findall(r"(?<!\w)'([^']*)'(?!\w)", finding.remedy)
        assert finding.id.startswith("mirror-") or quoted == list(finding.commands)
        assert quoted or any(words in finding.remedy for words in ("Nothing needs to be done", "link of its own"))
        assert "None" not in f"{finding.title} {finding.meaning} {finding.remedy}"


@pytest.mark.parametrize("wrong", "ab")
def test_the_cluster_conf_that_is_in_force_is_to_be_copied(wrong: str) -> None:
    other = "b" if wrong == "a" else "a"
    for text in (CONF.replace("7777", "7778"), None):
        (found,) = (
            each for each in examine(broken({"cluster_conf": text}, on=wrong)) if each.id == "o2cb-conf-differs"
        )
        copy = copying(Way(f"node{other}"), "/etc/ocfs2/cluster.conf", "/etc/ocfs2/cluster.conf")
        assert found.commands == (copy,)
        assert f"That of node{other} is the one in force" in found.remedy and f"run on node{wrong} 'scp" in found.remedy


def test_files_that_could_not_be_read_do_not_differ() -> None:
    look = healthy()
    values = {name: value for name, value in look.others[0].values.items() if name != "cluster_conf"}
    assert not examine(replace(look, others=(replace(look.others[0], values=values),)))


def test_a_secret_that_differs_is_told_without_its_value() -> None:
    secret = DUMP.replace("verify-alg       crc32c;", "verify-alg       crc32c;\n        shared-secret    hunter2;")
    (finding,) = examine(broken({"dump": secret}, on="b"))
    assert finding.id == "drbd-config-differs" and "shared-secret differs" in finding.meaning
    assert "hunter2" not in f"{finding.title}{finding.meaning}{finding.remedy}"


def test_a_secret_in_what_drbdadm_would_run_is_not_told() -> None:
    line = "drbdsetup-84 net-options --set-defaults --shared-secret=hunter2 --ping-int=5\n"
    (finding,) = examine(broken({"adjust": {"r0": line}}))
    assert "ping-int=5" in finding.meaning and "hunter2" not in finding.meaning


def test_a_clock_within_the_answers_delay_is_no_skew() -> None:
    """A node that took 3 s to answer may have looked at any moment of them."""
    other = replace(node("b"), at=NOW + 2.5, asked=NOW, heard=NOW + 3)
    assert examine(Look(node("a"), (other,), {}, (HA,))) == ()


def test_no_image_of_an_unknown_guest_is_freed_by_a_command_to_copy() -> None:
    """Where the configurations were lost, every image is such a one, and the only copy of its guest."""
    (found,) = examine(broken({"guests:ha": {"vmids": [], "named": [], "drives": []}}))
    assert found.id == "volume-orphaned" and "vm-100-disk-0" not in " ".join(found.commands)


def test_root_is_asked_for_only_where_it_is_missing() -> None:
    assert "root" not in examine(unread())[0].remedy
    denied = Look(replace(node("a"), unread={"show": "/dev/x: Permission denied"}), (node("b"),), {}, (HA,))
    assert "root" in examine(denied)[0].remedy


def test_the_order_is_worst_first() -> None:
    look = broken({"vendor": {"ocfs2.service": "FREE"}, "verify:ha": None, "speeds": {"eth1": "100"}})
    assert [finding.severity for finding in examine(look)] == [E, W, H]


def test_an_unmounted_storage_of_which_nothing_else_is_known_is_no_crowd_of_findings() -> None:
    down = {
        "superblock:ha": None,
        "volumes:ha": None,
        "mountinfo": "",
        "folder:ha": {"mounted": False, "there": True, "immutable": True, "count": 0},
    }
    look = Look(over(node("a"), {**down, **verdict("not-up")}), (over(node("b"), down),), {}, (HA,))
    assert [finding.id for finding in examine(look)] == ["mirror-not-up"]


@pytest.mark.parametrize("name", [name.removesuffix(".txt") for name in FILES])
def test_of_every_captured_state_of_both_generations_the_settings_are_read(name: str) -> None:
    """The captures' own settings are good where DRBD tells them: no finding but that a third node with quorum may be called UpToDate."""
    capture, _, letter = name.rpartition(".")
    captured = over(
        node("a", capture, letter),
        {"o2cb_defaults": None, "addresses": addresses("10.77.0.2" if letter == "b" else "10.77.0.1")},
    )
    found = {finding.id for finding in examine(Look(captured, (), {}, (HA,)))}
    assert found <= {"fault-drbd-lost-quorum"}, found
    own = link(captured, "r0")
    if letter in "ab" and "10.77.0." in str(captured.values["show"]):
        assert own is not None and own.name == "eth1"


def test_a_slow_resync_of_drbd_9_is_found_where_that_has_its_options() -> None:
    show = str(node("a", "9/04-mounted-both").values["show"])
    assert examine(broken({"show": show})) == ()
    (finding,) = examine(broken({"show": show.replace("204800k", "100k")}))
    assert finding.id == "drbd-resync-slow"


@pytest.mark.parametrize("look", [look for _, _, look, _ in TABLE], ids=[str(at) for at in range(len(TABLE))])
def test_no_remedy_adjusts_drbd_before_it_shows_what_that_would_do(look: Look) -> None:
    for finding in examine(look):
        commands = list(finding.commands)
        for at, command in enumerate(commands):
            if command.startswith("drbdadm adjust "):
                assert command.replace("drbdadm", "drbdadm --dry-run") in commands[:at], finding.id


def test_no_remedy_changes_the_mtu_of_a_link_in_use_or_puts_an_unsigned_kernel_in_place_of_a_signed_one() -> None:
    remedies = {finding.id: finding.remedy for _, _, look, _ in TABLE for finding in examine(look)}
    mtu = remedies["network-mtu-differs"]
    assert mtu.index("mirror down") < mtu.index("ip link set")
    assert (
        "--reinstall PACKAGE" in remedies["kernel-no-module"]
        and "dpkg -S /boot/vmlinuz-" in remedies["kernel-no-module"]
    )
