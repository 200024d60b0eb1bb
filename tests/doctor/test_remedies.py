"""Remedies whose words depend on what was seen: followed as they are, they must end the finding (tests/lab/test_doctor*.py)."""

from __future__ import annotations

import shlex
from dataclasses import asdict, replace

import pytest

from pvedrbdstor.doctor.checks import examine
from pvedrbdstor.doctor.finding import Severity
from pvedrbdstor.doctor.units import UNITS
from pvedrbdstor.pve.drives import drives_in
from tests.doctor.breaking import DIVERGED, bridge, broken, image, images, superblock, unit, write_path
from tests.doctor.world import GIB, NOW, drive, healthy

CLEAN_SINCE = {"mode": "sample", "verdict": "clean", "ended": NOW - 5}


@pytest.mark.parametrize(
    ("here", "there", "told"),
    [
        ({"standing": None, "judged": CLEAN_SINCE}, DIVERGED, True),
        ({"standing": {**CLEAN_SINCE, "mode": "allocated"}}, DIVERGED, False),
        ({"standing": {**CLEAN_SINCE, "mode": "full", "ended": NOW - 9000}}, DIVERGED, True),
        ({"standing": {**CLEAN_SINCE, "mode": "full", "began": NOW - 9000}}, DIVERGED, True),
        ({"standing": {**CLEAN_SINCE, "mode": "full", "began": NOW - 4000}}, DIVERGED, False),
        ({"standing": None}, {"judged": {**CLEAN_SINCE, "verdict": "diverged"}}, True),
        (DIVERGED, {"judged": CLEAN_SINCE}, True),
        (DIVERGED, {"judged": {**CLEAN_SINCE, "mode": "full", "verdict": "unsettled"}}, True),
        (DIVERGED, {"judged": {**CLEAN_SINCE, "mode": "full"}}, False),
    ],
    ids=[
        *("a sample on this node", "all on this node", "all before it", "all, begun before it", "all, begun after it"),
        *(
            "an older version there",
            "a sample of an older version",
            "left open by an older version",
            "all by an older version",
        ),
    ],
)
def test_a_difference_is_told_until_more_than_a_sample_found_none_on_either_node(
    here: dict[str, object], there: dict[str, object], told: bool
) -> None:
    look = broken({"verify:ha": here})
    look = replace(look, others=(replace(look.others[0], values={**look.others[0].values, "verify:ha": there}),))
    found = {finding.id: finding for finding in examine(look)}
    assert ("verify-diverged" in found) is told, found
    if told:
        assert found["verify-diverged"].commands == ("pvedrbdstor verify ha --mode allocated",)


@pytest.mark.parametrize(("mode", "option"), [("full", " --mode full"), ("sample", ""), ("; reboot", ""), (7, "")])
def test_what_failed_is_run_again_in_its_own_mode(mode: object, option: str) -> None:
    failed = {"mode": mode, "verdict": "could not check", "ended": NOW, "reason": "nodeb is Diskless"}
    found = {finding.id: finding for finding in examine(broken({"verify:ha": failed}))}
    assert found["verify-failed"].commands == (f"pvedrbdstor verify ha{option}",)


@pytest.mark.parametrize(
    ("here", "there", "older", "newer"), [("0.9.0", "0.10.0", "nodea", "0.10.0"), ("1.0.0", "0.10.0", "nodeb", "1.0.0")]
)
def test_the_older_of_two_versions_is_to_be_renewed(here: str, there: str, older: str, newer: str) -> None:
    look = healthy()
    others = (replace(look.others[0], version=there),)
    (finding,) = examine(replace(look, here=replace(look.here, version=here), others=others))
    assert f"on {older} as well" in finding.remedy
    assert finding.commands == (f"apt install ./pvedrbdstor_{newer}_amd64.deb",)


def test_another_link_is_taken_up_while_nothing_is_mounted() -> None:
    (finding,) = examine(broken({"addresses": bridge()}))
    assert finding.commands == (
        "pvedrbdstor mirror down ha",
        "drbdadm --dry-run adjust r0",
        "drbdadm adjust r0",
        "o2cb unregister-cluster pve",
        "pvedrbdstor mirror up ha",
    )


@pytest.mark.parametrize(
    "gone",
    [
        "drbdsetup-84 disconnect ipv4:10.77.0.1:7789 ipv4:10.77.0.2:7789\n",
        "drbdsetup del-path r0 1 ipv4:10.77.0.1:7789 ipv4:10.77.0.2:7789\n",
        "drbdsetup del-peer r0 1\n",
    ],
    ids=["8.4", "9, another address", "9, no such node"],
)
def test_addresses_that_were_written_and_not_taken_up_are_told(gone: str) -> None:
    """What drbdadm of the lab's node says then (8.4); a connection that is merely missing is the verdict's to tell."""
    connect = "drbdsetup-84 connect r0 ipv4:10.78.0.1:7789 ipv4:10.78.0.2:7789 --protocol=C\n"
    (finding,) = examine(broken({"adjust": {"r0": gone + connect}}))
    assert finding.id == "drbd-config-not-in-force" and "only with the storage down" in finding.remedy
    assert gone.split()[1] in finding.remedy, "it is among those that are warned of"
    after = finding.remedy.partition("only with the storage down")[2]
    assert [after.count(word) for word in ("mirror down", "adjust on both", "mirror up")] == [1, 1, 1], after
    assert examine(broken({"adjust": {"r0": connect}})) == ()


@pytest.mark.parametrize("what", [{"free": GIB}, {"free": 200 * GIB, "largest_free": 1 << 20, "map_read": True}])
def test_what_can_be_freed_is_told_by_what_knows_snapshots(what: dict[str, object]) -> None:
    (finding,) = [each for each in examine(broken(superblock(**what))) if each.id in ("ocfs2-full", "ocfs2-scattered")]
    assert finding.commands[0] == "pvedrbdstor space ha --sort frees"


def test_snapshots_of_an_image_in_many_pieces_are_removed_by_proxmox() -> None:
    """By ourselves they would stay in the guest's configuration. A move that keeps the old image would free nothing."""
    (finding,) = [
        each
        for each in examine(broken(images(pieces={"100/vm-100-disk-0.raw": 9000})))
        if each.id == "volume-fragmented"
    ]
    assert finding.commands[1:] == (
        "qm delsnapshot 100 NAME",
        "qm disk move 100 DISK STORAGE --delete 1",
        "pct delsnapshot 100 NAME",
        "pct move-volume 100 DISK STORAGE --delete 1",
    )


def test_images_that_were_not_counted_are_named() -> None:
    images_ = {
        "images": [image(100, "vm-100-disk-0.raw")],
        "not_looked_at": 9,
        "left": ["100/vm-100-disk-0.raw", "100/x"],
    }
    (finding,) = examine(broken({"volumes:ha": images_}))
    assert "100/vm-100-disk-0.raw" in finding.title and "100/x" not in finding.title
    assert finding.commands == ("filefrag /mnt/o/images/100/vm-100-disk-0.raw",)


AGAIN = "pvedrbdstor verify ha --write-path"


def test_a_mode_that_failed_is_left_by_the_disks_that_use_it_for_one_that_has_passed() -> None:
    drives = [drive(cache="writeback", aio="threads"), {**drive(cache="writeback"), "key": "scsi1"}]
    failed = write_path(modes="threads/writeback no/mode", safer="io_uring/writeback")
    (finding,) = examine(broken({**failed, "guests:ha": {"drives": drives}}))
    assert (
        "aio=threads,cache=writeback" in finding.title
        and "VM 100 scsi0" in finding.title
        and "scsi1" not in finding.title
    )
    assert finding.commands == (
        "qm set 100 --scsi0 ha:100/vm-100-disk-0.raw,cache=writeback,aio=io_uring",
        "dmesg",
        AGAIN,
    )
    assert finding.severity is Severity.ERROR


@pytest.mark.parametrize("guests", [None, {}, {"drives": 7}])
def test_where_the_guests_are_not_known_one_of_them_may_use_a_mode_that_failed(guests: object) -> None:
    look = broken({**write_path(modes="threads/none")})
    here = replace(look.here, values={**look.here.values, "guests:ha": guests})
    (finding,) = (each for each in examine(replace(look, here=here)) if each.id == "write-path-failed")
    assert finding.severity is Severity.ERROR and finding.commands == ("dmesg", AGAIN)


def test_a_mismatch_of_which_no_more_was_kept_is_told_and_writes_and_modes_each_by_themselves() -> None:
    (finding,) = examine(broken(write_path()))
    assert finding.severity is Severity.ERROR and finding.commands == ("dmesg", AGAIN)
    both = examine(broken(write_path(writes="1 of 256 writes of nodea came late", modes="threads/none")))
    assert [finding.severity for finding in both] == [Severity.ERROR, Severity.WARNING]
    assert "1 of 256 writes of nodea came late" in both[0].title


def test_a_mismatch_is_told_until_a_later_check_from_either_node_found_none() -> None:
    found = broken(write_path(modes="threads/none"))
    for ended, told in ((NOW - 900, True), (NOW - 5, False)):
        since = write_path(verdict="ok", ended=ended)
        other = replace(found.others[0], values={**found.others[0].values, **since})
        assert bool(examine(replace(found, others=(other,)))) is told


def stray(*paths: str, **more: object) -> dict[str, object]:
    return images(foreign={"count": len(paths), "first": list(paths)}, **more)


def test_a_stray_file_is_looked_at_and_kept_under_a_name_that_is_free_or_removed_by_one_that_asks() -> None:
    (finding,) = examine(broken(stray("images/100/old.img", "images/100/note")))
    file = "/mnt/o/images/100/old.img"
    assert finding.commands == (
        f"ls -l {file}",
        f"qemu-img info {file}",
        f"mv --no-clobber {file} /mnt/o/images/100/vm-100-disk-1.raw",
        "qm disk rescan --vmid 100",
        "pct rescan --vmid 100",
        f"rm --interactive {file}",
    )
    assert "images/100/old.img, images/100/note" in finding.title


@pytest.mark.parametrize(
    "path", ["images/100/a b", "images/100/a'b", "images/100/$(reboot)", "images/100/a\nb", "images/100/\udcff", 7]
)
def test_no_odd_name_of_a_file_gets_into_a_command_line(path: object) -> None:
    for found in ({"foreign": {"count": 1, "first": [path]}}, {"lone": {"count": 1, "first": [path]}}):
        (finding,) = examine(broken(images(**found)))
        assert finding.commands == ("pvedrbdstor space ha",) and finding.title.isprintable()


def test_layers_of_a_chain_are_not_removed_as_an_image_may_read_from_them() -> None:
    layer = "images/100/snap-one-vm-100-disk-0.qcow2"
    (alone,) = examine(broken(stray(layer, layers=1)))
    assert alone.commands == ("qm disk move", f"qemu-img info /mnt/o/{layer}")
    (beside,) = examine(broken(stray(layer, "images/100/note", layers=1)))
    assert "Leave 1 layer " in beside.remedy and not any(layer in command for command in beside.commands)


def test_a_snapshot_becomes_its_image_again_where_that_can_be() -> None:
    path = "images/100/.snapshots/{}/one.raw"
    (finding,) = examine(
        broken(images(lone={"count": 2, "first": [path.format("gone"), path.format("vm-100-disk-7.raw")]}))
    )
    snapshot = f"/mnt/o/{path.format('vm-100-disk-7.raw')}"
    assert finding.commands[:2] == (
        "ls -l /mnt/o/images/100/.snapshots/vm-100-disk-7.raw",
        f"mv --no-clobber {snapshot} /mnt/o/images/100/vm-100-disk-7.raw",
    )
    for name in ("gone", "vm-100-disk-7.qcow2"):
        (finding,) = examine(broken(images(lone={"count": 1, "first": [path.format(name)]})))
        assert finding.commands == ("pvedrbdstor space ha",)


def drives_of(values: list[str]) -> dict[str, object]:
    """What a node tells of VM 100 with these disks."""
    text = "".join(f"scsi{at}: {value}\n" for at, value in enumerate(values))
    return {"guests:ha": {"drives": [asdict(drive) for drive in drives_in(text, 100, "ha", "/mnt/o")]}}


@pytest.mark.parametrize("cache", ["", ",cache=none", ",cache=directsync", ",cache=writeback", ",cache=unsafe"])
@pytest.mark.parametrize("aio", ["", ",aio=native", ",aio=threads", ",aio=io_uring"])
def test_what_a_remedy_sets_brings_no_other_finding(cache: str, aio: str) -> None:
    """Each is followed until none is left that helps: with `aio=native` behind the page cache no guest would start."""
    value = f"ha:100/vm-100-disk-0.raw{aio}{cache},size=1G"
    not_whole = images(images=[{**image(100, "vm-100-disk-0.raw"), "used": 0}])
    seen = examine(broken({**drives_of([value]), **not_whole}))
    for finding in seen:
        (command,) = finding.commands
        said = "no disk may keep `aio=native` then" in finding.remedy
        assert said == (aio == ",aio=native" and finding.id in ("guest-flushes-lost", "guest-cache-unsafe"))
        words = shlex.split(command)
        assert words[:4] == ["qm", "set", "100", "--scsi0"] and ",size=1G" in words[4]
        after = {left.id for left in examine(broken({**drives_of(words[4:]), **not_whole}))}
        assert after <= {each.id for each in seen} - {finding.id}, command


def test_another_disk_with_native_aio_is_warned_of_too() -> None:
    values = ["ha:100/vm-100-disk-0.raw", "ha:100/vm-100-disk-1.raw,aio=native"]
    found = {finding.id: finding for finding in examine(broken(drives_of(values)))}
    assert "no disk may keep `aio=native` then" in found["guest-flushes-lost"].remedy
    assert "without `aio=native`" in found["guest-full-errors"].meaning
    assert found["guest-flushes-lost"].commands == ("qm set 100 --scsi0 ha:100/vm-100-disk-0.raw,cache=writeback",)


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_that_only_works_at_boot_is_not_missed_before_the_first_one(name: str) -> None:
    """The package enables pvedrbdstor-boot.service and does not start it: so is each node until it boots."""
    found = examine(broken(unit(name, ActiveState="inactive"), on="ab"))
    assert [finding.id for finding in found] == ([] if name == "pvedrbdstor-boot.service" else ["unit-off"] * 2)
    for wrong in (
        {"ActiveState": "failed"},
        {"ActiveState": "inactive", "UnitFileState": "disabled"},
        {"ActiveState": "inactive", "UnitFileState": "masked"},
        {"ActiveState": "inactive", "LoadState": "not-found"},
    ):
        assert len(examine(broken(unit(name, **wrong)))) == 1, wrong
