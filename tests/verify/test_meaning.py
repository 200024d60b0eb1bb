"""What is told of differences, and which repairs go with them: pure functions."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor import command
from pvedrbdstor.command import Result
from pvedrbdstor.drbd.generation import Generation
from pvedrbdstor.errors import CommandTimeout
from pvedrbdstor.verify import guests
from pvedrbdstor.verify.guests import Guest
from pvedrbdstor.verify.harm import Harm
from pvedrbdstor.verify.image import Part
from pvedrbdstor.verify.labels import label, path
from pvedrbdstor.verify.meaning import Found, Meaning, as_json
from pvedrbdstor.verify.repairs import ALL, Mirror, Reach, Repair, repairs
from pvedrbdstor.verify.where_text import lines, repair_lines, size

MIRROR = Mirror("ha", "/mnt/pve/ha", "r0")
IMAGE = Found(
    Harm.GUEST,
    "images/100/vm-100-disk-0.raw",
    "image",
    'partition 2 (ext4 "root")',
    (Part(1 << 30, 5 << 30, 4096, 1 << 30),),
    1,
    4096,
    vmid=100,
    guest=Guest(100, "VM", False, "pve1", "web"),
    used="VM 100 (scsi0)",
    partition=2,
    holds="ext4",
)
FREE = Found(Harm.FREE, "", "no file's", "free space", (Part(0, 0, 512),), 1, 512)


def of(*found: Found) -> Meaning:
    return Meaning(found, len(found), sum(it.bytes for it in found))


def commands(found: tuple[Repair, ...]) -> list[str]:
    return [text for repair in found for _, text in repair.commands]


# --- repairs ---------------------------------------------------------------------------------------------------------


def test_nothing_is_to_be_done_for_nothing_and_for_free_space() -> None:
    assert repairs(of(), MIRROR) == ()
    found = repairs(of(FREE), MIRROR)
    assert [it.title for it in found] == ["Nothing has to be done"]
    assert commands(found) == []


def test_swap_alone_calls_for_nothing_now() -> None:
    found = repairs(of(replace(IMAGE, harm=Harm.SWAP), FREE), MIRROR)
    assert [it.title for it in found] == ["Nothing has to be done now"]


@pytest.mark.parametrize("found", [FREE, replace(IMAGE, harm=Harm.SWAP), replace(IMAGE, harm=Harm.WORK)])
@pytest.mark.parametrize("exact", [True, False])
def test_nobody_is_told_to_do_nothing_where_the_rest_is_not_known(found: Found, exact: bool) -> None:
    told = repairs(of(found), MIRROR, Reach("The search was ended", exact))
    assert [it.title for it in told] == ["Find out what else differs"]
    assert told[0].text.startswith("The search was ended: the rest is not known.")
    assert commands(told) == ["pvedrbdstor verify ha --mode allocated"]


def test_what_goes_by_the_blocks_of_one_file_is_not_offered_before_they_are_all_known() -> None:
    """Of a sample `these snapshots have none of the blocks that differ` is true of one block in a hundred."""
    image = of(replace(IMAGE, intact=("before",)))
    told = repairs(image, MIRROR, Reach("Only a sample was compared", exact=False))
    assert told[0].title == "Find out what else differs" and "the rest is not known" in told[0].text
    assert not any(text.startswith("dd ") or "rollback" in text for text in commands(told))
    titles = [it.title for it in told]
    assert "Let DRBD copy the blocks that differ" in titles and "Let the guest write it anew" in titles
    known = commands(repairs(image, MIRROR, Reach("Some of it kept changing")))
    assert known == commands(repairs(image, MIRROR, ALL)) and any(text.startswith("dd ") for text in known)


@pytest.mark.parametrize("harm", [it for it in Harm if it not in (Harm.WORK, Harm.IN_FLIGHT, Harm.SWAP, Harm.FREE)])
def test_blocks_that_somebody_reads_can_be_copied_by_drbd(harm: Harm) -> None:
    titles = [it.title for it in repairs(of(replace(IMAGE, harm=harm)), MIRROR)]
    assert "Let DRBD copy the blocks that differ" in titles and "Let DRBD copy everything" in titles


def test_metadata_is_looked_at_first() -> None:
    found = repairs(of(replace(IMAGE, harm=Harm.METADATA, path="")), MIRROR)
    assert commands(found)[0] == "fsck.ocfs2 -fn /dev/drbd/by-res/r0/0"


def test_of_84_the_node_with_the_wrong_copy_goes_down_and_the_other_stays_up() -> None:
    repair = next(it for it in repairs(of(IMAGE), MIRROR) if it.title == "Let DRBD copy the blocks that differ")
    assert repair.commands[-3:-1] == (
        ("on the node whose copy is wrong", "pvedrbdstor mirror down ha --stop"),
        ("on the node whose copy is wrong", "pvedrbdstor mirror up ha"),
    )
    assert not any(text.startswith(("drbdadm disconnect", "drbdadm invalidate")) for _, text in repair.commands)


def test_of_9_the_marks_are_kept_by_name() -> None:
    nine = replace(MIRROR, generation=Generation.V9, volume=3)
    repair = next(it for it in repairs(of(IMAGE), nine) if it.title == "Let DRBD copy the blocks that differ")
    texts = [text for _, text in repair.commands]
    assert "drbdadm invalidate --reset-bitmap=no r0/3" in texts
    assert texts.index("pvedrbdstor mirror down ha") < texts.index("drbdadm invalidate --reset-bitmap=no r0/3")
    assert not any(text.startswith("drbdadm disconnect") for text in texts)


def test_without_an_algorithm_drbd_cannot_mark_blocks() -> None:
    found = repairs(of(IMAGE), replace(MIRROR, verify_alg=False))
    assert "drbdadm adjust r0" in commands(found)
    assert not any("--mode kernel" in text for text in commands(found))


@pytest.mark.parametrize("generation", Generation)
def test_the_blocks_are_marked_from_the_beginning_of_the_device(generation: Generation) -> None:
    """`drbdadm verify` goes on where the last one was broken off (drbd_nl.c), and marks nothing before that."""
    repair = next(it for it in repairs(of(IMAGE), replace(MIRROR, generation=generation)) if "that differ" in it.title)
    texts = [text for _, text in repair.commands]
    assert not any("drbdadm verify" in text for text in texts)
    assert texts[1].startswith("pvedrbdstor verify ha --mode kernel ")


def test_every_repair_that_changes_something_ends_with_another_check() -> None:
    found = (
        replace(IMAGE, harm=Harm.METADATA, path=""),
        replace(IMAGE, intact=("before",)),
        replace(IMAGE, harm=Harm.SNAPSHOT),
        replace(IMAGE, harm=Harm.CONTENT),
    )
    told = repairs(of(*found), MIRROR) + repairs(of(*found), replace(MIRROR, generation=Generation.V9))
    told += repairs(of(*found), replace(MIRROR, verify_alg=False))
    changing = [it for it in told if not it.title.startswith("See which")]
    assert len(changing) == 3 * 7
    for repair in changing:
        assert repair.commands[-1][1] == "pvedrbdstor verify ha --mode allocated", repair.title


def test_blocks_of_a_stopped_guest_are_written_anew_and_only_they() -> None:
    image = replace(
        IMAGE, path="images/100/it's.raw", parts=(Part(8192 + 512, 0, 4096), Part(1 << 40, 0, 512)), count=2
    )
    found = [text for text in commands(repairs(of(image), MIRROR)) if text.startswith("dd ")]
    assert [shlex.split(text)[-3:] for text in found] == [
        ["skip=8192", "seek=8192", "count=8192"],
        [f"skip={1 << 40}", f"seek={1 << 40}", "count=4096"],
    ]
    assert shlex.split(found[0])[1:3] == ["if=/mnt/pve/ha/images/100/it's.raw", "of=/mnt/pve/ha/images/100/it's.raw"]
    assert all("conv=notrunc" in text for text in found)
    assert "qm status 100   # must say 'stopped', whatever it was before" in commands(repairs(of(image), MIRROR))


@pytest.mark.parametrize("guest", [Guest(100, "VM", True), Guest(100, "CT", True), None])
@pytest.mark.parametrize("harm", [Harm.RUNNING, Harm.GUEST, Harm.UNKNOWN])
def test_no_image_of_a_guest_that_may_run_is_written_from_outside(harm: Harm, guest: Guest | None) -> None:
    """Data of unknown kind may well be those of a guest that runs, and of a guest that nobody knows nothing is known."""
    assert not any(
        text.startswith("dd ") for text in commands(repairs(of(replace(IMAGE, harm=harm, guest=guest)), MIRROR))
    )


@pytest.mark.parametrize(
    ("guest", "expected"),
    [
        (Guest(100, "VM", False), ["qm rollback 100 new"]),
        (Guest(100, "CT", False), ["pct rollback 100 new"]),
        (None, ["qm rollback 100 new", "pct rollback 100 new"]),
    ],
)
def test_the_newest_intact_snapshot_is_offered(guest: Guest | None, expected: list[str]) -> None:
    found = commands(repairs(of(replace(IMAGE, guest=guest, intact=("old", "new"))), MIRROR))
    assert [text for text in found if " rollback 100 " in text] == expected
    assert "pvedrbdstor volume snapshot rollback ha:100/vm-100-disk-0.raw new" in found


def test_no_rollback_where_no_snapshot_is_intact() -> None:
    assert not any("rollback" in text for text in commands(repairs(of(IMAGE), MIRROR)))


def test_a_backup_is_made_anew() -> None:
    backup = replace(IMAGE, harm=Harm.CONTENT, path="dump/a b.vma", what="backup", vmid=None, guest=None)
    assert "sha256sum '/mnt/pve/ha/dump/a b.vma'" in commands(repairs(of(backup), MIRROR))


_found = st.builds(
    replace,
    st.just(IMAGE),
    harm=st.sampled_from(Harm),
    path=st.sampled_from(["", "images/1/a;reboot.raw", "$(reboot)", "-rf", "a'b\"c"]),
    intact=st.sampled_from([(), ("before",)]),
    count=st.integers(1, 10_000),
)


@given(st.lists(_found, max_size=60), st.sampled_from(Generation), st.booleans())
def test_commands_are_bounded_and_no_name_breaks_out_of_its_word(
    found: list[Found], generation: Generation, algorithm: bool
) -> None:
    told = repairs(of(*found), replace(MIRROR, generation=generation, verify_alg=algorithm))
    assert len(told) <= 40
    for text in commands(told):
        if "#" not in text and not text.startswith("move or stop"):
            words = shlex.split(text)
            assert words[0] in ("dd", "qm", "pct", "pvedrbdstor", "drbdadm", "fsck.ocfs2", "sha256sum")
            assert not any(word in ("reboot", "-rf") for word in words)


# --- text and JSON -----------------------------------------------------------------------------------------------------


def test_the_report_groups_by_harm_and_file() -> None:
    swap = replace(
        IMAGE, harm=Harm.SWAP, region="partition 1 (swap)", parts=(Part(0, 0, 4096, 0),), partition=1, holds="swap"
    )
    shared = replace(IMAGE, shared=("images/100/.snapshots/vm-100-disk-0.raw/a.raw",), intact=("b",))
    assert list(lines(of(shared, swap, FREE))) == [
        "Data in a file system of a guest that does not run (4 KiB):",
        f"  {Harm.GUEST.meaning}",
        "  - images/100/vm-100-disk-0.raw (VM 100 (scsi0), does not run on pve1)",
        "    shares such blocks with images/100/.snapshots/vm-100-disk-0.raw/a.raw",
        "    snapshots that have none of them: b",
        '    partition 2 (ext4 "root"): 4 KiB',
        "      4096 bytes at byte 1073741824 (1 GiB); byte 5368709120 of the device",
        "Swap of a guest (4 KiB):",
        f"  {Harm.SWAP.meaning}",
        "  - images/100/vm-100-disk-0.raw (VM 100 (scsi0), does not run on pve1)",
        "    partition 1 (swap): 4 KiB",
        "      4096 bytes at byte 0 (0 B); byte 0 of the device",
        "Free or never written (512 B):",
        f"  {Harm.FREE.meaning}",
        "  - free space: 512 B",
        "      512 bytes at byte 0 of the device (0 B)",
    ]


def test_commands_are_grouped_by_the_node_where_they_are_run() -> None:
    repair = Repair("Do it", "At night.", (("on a", "one"), ("on a", "two"), ("on b", "three"), ("on a", "four")))
    assert list(repair_lines((repair,))) == [
        "1. Do it. At night.",
        *("   on a:", "     one", "     two", "   on b:", "     three", "   on a:", "     four"),
    ]


def test_the_guests_place_is_told_where_it_is_another() -> None:
    other = replace(IMAGE, parts=(Part(65536, 0, 512, 1 << 20),))
    assert any(line.endswith("at byte 1048576 of the guest's disk; byte 0 of the device") for line in lines(of(other)))


def test_the_report_is_bounded() -> None:
    many = replace(IMAGE, parts=tuple(Part(at * 8192, 0, 512) for at in range(1000)), count=50_000, bytes=25_600_000)
    told = list(lines(of(*(replace(many, path=f"images/1/{number:04}.raw") for number in range(900)))))
    assert len(told) < 600
    assert "      and 49995 more places" in told
    assert "  - and 850 more" in told
    assert len(json.dumps(as_json(of(many)))) < 20_000


@given(st.integers(0, 1 << 62))
def test_sizes_are_short(count: int) -> None:
    assert len(size(count)) < 14


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (512, "512 B"), (4096, "4 KiB"), (1536 << 20, "1.5 GiB"), (1 << 60, "1024 PiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_harms_are_in_their_order() -> None:
    assert [it.rank for it in Harm] == list(range(len(Harm)))
    assert [it for it in Harm if it.harmless] == [Harm.FREE]


@given(st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape")))
def test_names_are_printable_and_bounded(text: str) -> None:
    assert label(text).isprintable() and len(label(text)) <= 40
    assert path(text).isprintable() and len(path(text)) <= 410


# --- guests --------------------------------------------------------------------------------------------------------------

_LISTED = json.dumps(
    [
        {"vmid": 100, "type": "qemu", "status": "running", "node": "pve1", "name": "web"},
        {"vmid": 101, "type": "lxc", "status": "stopped", "node": "pve2"},
        {"vmid": 102, "type": "qemu", "status": "unknown", "node": "pve3"},
        {"vmid": "103", "type": "qemu"},
        {"type": "storage"},
        7,
    ]
)


def test_guests_are_those_that_proxmox_lists() -> None:
    assert guests.parse(_LISTED) == {
        100: Guest(100, "VM", True, "pve1", "web"),
        101: Guest(101, "CT", False, "pve2"),
        102: Guest(102, "VM", True, "pve3"),  # of a node that does not answer: taken for one that runs
    }


@pytest.mark.parametrize("text", ["", "{}", "null", "[", "7"])
def test_what_is_no_list_is_not_known(text: str) -> None:
    assert guests.parse(text) is None


def test_a_proxmox_that_does_not_answer_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object, **__: object) -> Result:
        raise CommandTimeout(command="pvesh", seconds=20)

    monkeypatch.setattr(command, "run", silent)
    assert guests.guests() is None
