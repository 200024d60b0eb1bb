"""Each finding of the catalogue out of a healthy pair that was broken in one way, and nothing else with it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from pvedrbdstor.doctor.checks import CATALOGUE, examine
from pvedrbdstor.doctor.checks.network import link
from pvedrbdstor.doctor.facts import Look
from pvedrbdstor.doctor.finding import Severity, exit_status
from tests.doctor.breaking import (
    APART,
    DIVERGED,
    DUMP,
    FILLED,
    KERNEL_NODES,
    KERNEL_SHORT,
    KERNELS,
    OLD,
    PROC,
    SHOW,
    E,
    H,
    W,
    bridge,
    clock,
    drbd_9,
    fw,
    guard,
    image,
    images,
    kernel,
    silent,
    superblock,
    unit,
    unlucky,
    unread,
    verdict,
    version,
    with_disk_option,
    write_path,
)
from tests.doctor.world import (
    CONF,
    DEFAULTS,
    GIB,
    HA,
    MOUNT,
    NOW,
    addresses,
    broken,
    drive,
    healthy,
    node,
    over,
)
from tests.drbd.support import FILES

# the finding and its severity; the pair that has it; the nodes it names
TABLE: list[tuple[str, Severity, Look, str]] = [
    ("unread", W, unread(), "a"),
    ("node-silent", W, silent(), ""),
    ("versions-differ", W, version(), "ab"),
    ("storage-unusable", E, replace(healthy(), unusable={"bad": "the property 'path' is missing"}), ""),
    ("check-broke", W, unlucky(healthy(), "units"), "a"),
    *[
        (f"mirror-{kind}", E, broken(verdict(kind)), "a")
        for kind in (
            "unknown",
            "split-brain",
            "inconsistent",
            "stale",
            "suspended",
            "read-only",
            "not-up",
            "unprotected",
        )
    ],
    ("mirror-unprotected", E, broken(verdict("unprotected"), on="ab"), "ab"),
    ("mirror-degraded", W, broken(verdict("degraded", "warning")), "a"),
    ("guard-handicap", W, broken(guard(handicap="it has just begun")), "a"),
    ("guard-old", H, broken(guard(version="0.0.9")), "a"),
    (
        "drbd-config-differs",
        E,
        broken({"dump": DUMP.replace("ping-int           5", "ping-int           9")}, on="b"),
        "ab",
    ),
    ("drbd-undefined", E, broken({"dump": "common { }\n"}, on="b"), "b"),
    (
        "drbd-config-not-in-force",
        W,
        broken(
            {
                "adjust": {
                    "r0": "drbdsetup-84 net-options ipv4:10.77.0.1:7789 ipv4:10.77.0.2:7789 --set-defaults --ping-int=5\n"
                }
            }
        ),
        "a",
    ),
    (
        "o2cb-conf-differs",
        E,
        broken({"cluster_conf": CONF.replace("7777", "7778"), "o2cb_kernel": {"pve": {}}}, on="b"),
        "ab",
    ),
    ("o2cb-conf-broken", E, broken({"cluster_conf": CONF.replace("node_count = 2", "node_count = 3")}, on="ab"), "a"),
    ("o2cb-conf-not-in-force", W, broken({"o2cb_kernel": KERNEL_NODES}), "a"),
    ("o2cb-timeouts-differ", E, broken({"o2cb_kernel": KERNEL_SHORT, "o2cb_defaults": None}, on="b"), "ab"),
    ("o2cb-timeouts-not-in-force", W, broken({"o2cb_defaults": DEFAULTS.replace("31", "61")}, on="b"), "b"),
    ("drbd-protocol", E, broken({"show": SHOW.replace("    net {", "    net {\n        protocol A;")}), "a"),
    ("drbd-no-verify-alg", H, broken({"show": SHOW.replace('verify-alg      \t"crc32c";', "")}), "a"),
    ("drbd-flushes-off", W, broken(with_disk_option("md-flushes no")), "a"),
    ("drbd-al-extents", H, broken(with_disk_option("al-extents 67")), "a"),
    ("drbd-resync-slow", W, broken({"show": SHOW.replace("204800k", "100k")}), "a"),
    ("mount-coherency", W, broken({"mountinfo": MOUNT.replace("coherency=full", "coherency=buffered")}), "a"),
    ("mount-writeback", W, broken({"mountinfo": MOUNT.replace("data=ordered", "data=writeback")}), "a"),
    ("mount-errors", W, broken({"mountinfo": MOUNT.replace("errors=remount-ro", "errors=panic")}), "a"),
    ("mount-point-mutable", W, broken({"folder:ha": {**FILLED, "count": 0}}), "a"),
    ("mount-point-filled", W, broken({"folder:ha": FILLED}), "a"),
    ("vendor-unmasked", E, broken({"vendor": {"ocfs2.service": "FREE"}}), "a"),
    ("vendor-replaced", H, broken({"vendor": {"ocfs2.service": "REPLACED"}}), "a"),
    ("kernel-no-module", W, broken(kernel("6.14.8-2-pve", missing=["drbd"])), "a"),
    ("kernel-no-module", H, broken(kernel("5.15.1-1-pve", missing=["ocfs2"])), "a"),
    ("kernel-no-module", E, broken({"kernels": [{**KERNELS[0], "missing": ["ocfs2"]}]}), "a"),
    ("kernel-drbd-generation", W, broken(kernel("6.14.8-2-pve", drbd="9.2.14")), "a"),
    ("drbd-generations-differ", W, broken({"kernels": [{**KERNELS[0], "drbd": "9.2.14"}]}, on="b"), "ab"),
    ("fault-ocfs2-fallocate", E, broken({"release": "5.10.70-1-pve #1"}), "a"),
    (
        "fault-ocfs2-credits",
        W,
        broken({"release": "6.8.12-9-pve #1"}, on="ab", storage=replace(HA, preallocation="falloc")),
        "ab",
    ),
    ("fault-drbd-lost-quorum", W, drbd_9(), "a"),
    ("ocfs2-slots", E, broken(superblock(slots=1)), ""),
    (
        "ocfs2-features",
        W,
        broken(
            superblock(
                features=["xattr", "sparse", "unwritten", "discontig-bg", "indexed-dirs", "metaecc", "backup-super"]
            )
        ),
        "",
    ),
    (
        "ocfs2-features",
        H,
        broken(
            superblock(
                features=["refcount", "xattr", "sparse", "unwritten", "discontig-bg", "indexed-dirs", "backup-super"]
            )
        ),
        "",
    ),
    ("ocfs2-small-clusters", H, broken(superblock(cluster_size=4096)), ""),
    ("ocfs2-journal", H, broken(superblock(journals=[16 << 20, 256 << 20])), ""),
    ("ocfs2-full", W, broken(superblock(free=5 * GIB)), ""),
    ("ocfs2-full", E, broken(superblock(free=GIB)), ""),
    ("ocfs2-scattered", H, broken(superblock(largest_free=1 << 20)), ""),
    ("ocfs2-map-unread", H, broken(superblock(largest_free=1 << 20, map_read=False)), ""),
    ("ocfs2-map-unread", W, broken(superblock(problem="block 7 is no inode")), ""),
    ("verify-diverged", E, broken({"verify:ha": DIVERGED}), ""),
    (
        "verify-failed",
        W,
        broken({"verify:ha": {"verdict": "could not check", "ended": NOW, "reason": "nodeb is Diskless"}}),
        "",
    ),
    ("verify-never", H, broken({"verify:ha": None}), ""),
    ("verify-old", H, broken({"verify:ha": OLD}), ""),
    ("write-path-failed", E, broken(write_path(writes="1 of 256 writes of nodea were lost")), ""),
    ("write-path-failed", E, broken(write_path(modes="io_uring/writeback", safer="threads/writeback"), on="b"), ""),
    ("write-path-failed", W, broken(write_path(modes="threads/none", safer="io_uring/writeback")), ""),
    ("metadata-backup-none", H, broken({"metadata:ha": None}), "a"),
    ("metadata-backup-old", H, broken({"metadata:ha": {"at": NOW - 40 * 86400}}, on="ab"), "ab"),
    ("metadata-backup-damaged", W, broken({"metadata:ha": {"damaged": ["map.jsonl.gz has another length"]}}), "a"),
    ("network-mtu-differs", W, broken({"addresses": addresses("10.77.0.2", 9000)}, on="b"), "ab"),
    ("network-shared", H, broken({"addresses": bridge()}), "a"),
    ("network-slow", W, broken({"speeds": {"eth1": "100"}}), "a"),
    ("clock-skew", W, clock(-4), "ab"),
    ("clock-skew", W, clock(4), "ab"),
    ("volume-missing", E, broken(images(images=[])), ""),
    (
        "volume-orphaned",
        H,
        broken(images(images=[image(100, "vm-100-disk-0.raw"), image(999, "vm-999-disk-0.raw")])),
        "",
    ),
    (
        "volume-unreferenced",
        H,
        broken(images(images=[image(100, "vm-100-disk-0.raw"), image(100, "vm-100-disk-1.raw")])),
        "",
    ),
    ("volume-interrupted", W, broken(images(interrupted=1)), ""),
    ("volume-fragmented", H, broken(images(pieces={"100/vm-100-disk-0.raw": 9000})), ""),
    ("volume-unlooked", H, broken(images(not_looked_at=3)), ""),
    ("volume-foreign", H, broken(images(foreign={"count": 1, "first": ["images/100/note"]})), ""),
    (
        "volume-foreign",
        H,
        broken(images(lone={"count": 1, "first": ["images/100/.snapshots/vm-100-disk-7.raw/one.raw"]})),
        "",
    ),
    ("guest-cache-unsafe", W, broken({"guests:ha": {"drives": [drive(cache="unsafe")]}}), ""),
    ("guest-aio-native", W, broken({"guests:ha": {"drives": [drive(cache="writeback", aio="native")]}}), ""),
    ("guest-flushes-lost", H, broken({"guests:ha": {"drives": [drive()]}}), ""),
    (
        "guest-full-errors",
        H,
        broken({"guests:ha": {"drives": [drive()]}, **images(images=[{**image(100, "vm-100-disk-0.raw"), "used": 0}])}),
        "",
    ),
    ("firewall-closed", W, broken(fw("")), "a"),
    ("firewall-closed", H, broken(fw("IN ACCEPT -source +who -p tcp")), "a"),
    (
        "drbd-port-blocked",
        E,
        Look(*(lambda a, b: (a, (b,)))(*(over(node(letter), APART) for letter in "ab")), {}, (HA,)),
        "",
    ),
    ("network-slower-than-disk", H, broken({"speeds": {"eth1": "1000"}}), "ab"),
    ("drbd-write-ordering", W, broken({"proc_drbd": PROC.replace("wo:f", "wo:d")}), "a"),
    ("unit-failed", W, broken(unit("pvedrbdstor-verify@ha.service", ActiveState="failed"), on="b"), "b"),
    ("unit-off", W, broken(unit("pvedrbdstor-boot.service", UnitFileState="disabled")), "a"),
    ("fsck-missing", W, broken({"fsck": None}), "a"),
    (
        "fsck-cannot-replay",
        W,
        broken(superblock(journal_features=[{"incompat": 1, "ro_compat": 0}, {"incompat": 5, "ro_compat": 0}])),
        "",
    ),
]


IMPLIED: dict[str, set[str]] = {"verify-failed": {"verify-never"}, "guest-full-errors": {"guest-flushes-lost"}}
"""What comes with another finding, as both are true."""


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
        assert found.commands == (f"scp root@node{other}:/etc/ocfs2/cluster.conf /etc/ocfs2/cluster.conf",)
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
