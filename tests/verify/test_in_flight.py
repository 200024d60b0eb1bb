"""Memory that was changed while it was written: what the kernel's logs prove, what they do not, and how that is told."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd import config as drbd_config
from pvedrbdstor.drbd.metadata import BLOCK, Range, merged
from pvedrbdstor.errors import CommandFailed
from pvedrbdstor.verify import guests, in_flight, kernel, repairs, where_text
from pvedrbdstor.verify.guests import Guest
from pvedrbdstor.verify.harm import Harm
from pvedrbdstor.verify.in_flight import WRITES_MAX, Modified, whole_blocks_within
from pvedrbdstor.verify.meaning import Found, Meaning
from pvedrbdstor.verify.repairs import Mirror
from tests.loopback import Loopback
from tests.verify.disks import ROOT, SWAP, write
from tests.verify.test_where import IMAGE, RUNS, clone, image, on_device, opened, where

SNAPSHOT = "images/100/.snapshots/vm-100-disk-0.raw/old.raw"
CONFIG = StorageConfig("ha", "/mnt/pve/ha", "r0")
SAID = "Digest mismatch, buffer modified by upper layers during write: {}s +{}"


@pytest.mark.parametrize(
    ("line", "writes"),
    [
        (f"block drbd0: {SAID.format(8, 4096)}", [(4096, 4096)]),
        (f"drbd r0/0 drbd0: {SAID.format(8, 4096)}", [(4096, 4096)]),
        (f"drbd r0/0 drbd0 nodeb: {SAID.format(8, 4096)}", [(4096, 4096)]),
        (f"drbd r0/0 drbd01: {SAID.format(8, 4096)}", []),
        (f"block drbd1: {SAID.format(8, 4096)}", []),
        (f"block drbd0: {SAID.format(8, 0)}", []),
        (f"block drbd0: {SAID.format(8, (1 << 20) + 512)}", []),  # no write is as long
        ("block drbd0: Digest integrity check FAILED: 8s +4096", []),  # the other node's, also for a broken link
        (f"a program says block drbd0: {SAID.format(8, 4096)}", []),
        (f"block drbd0: {SAID.format('9' * 40, 4096)}", []),
    ],
)
def test_only_drbds_own_words_of_this_device_count(line: str, writes: list[Range]) -> None:
    found = Modified(0)
    found.see(line)
    assert found.writes == writes


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("block drbd0: Resync done (total 1 sec; paused 0 sec; 4 K/sec)", False),
        ("drbd r0/0 drbd0 nodeb: Resync done (total 1 sec; paused 0 sec; 4 K/sec)", False),
        ("block drbd0: disk( Diskless -> Attaching ) ", False),
        ("block drbd1: Resync done (total 1 sec; paused 0 sec; 4 K/sec)", True),
        ("block drbd0: conn( WFBitMapS -> SyncSource )", True),
    ],
)
def test_what_was_said_before_a_copy_was_made_anew_proves_nothing_of_it(line: str, counts: bool) -> None:
    found = Modified(0)
    found.see(f"block drbd0: {SAID.format(8, 4096)}")
    found.see(line)
    assert (found.writes != []) is counts
    found.see(f"block drbd0: {SAID.format(16, 4096)}")
    assert (8192, 4096) in found.writes


def test_of_too_many_the_last_ones_are_kept() -> None:
    found = Modified(0)
    for number in range(WRITES_MAX + 5):
        found.see(f"block drbd0: {SAID.format(number * 16, 4096)}")
    assert len(found.writes) == WRITES_MAX and found.writes[0][0] == 5 * 16 * 512


def test_the_log_is_read_to_its_end(tmp_path: Path) -> None:
    """As /dev/kmsg gives it, a record a read."""
    forged = f"12,1,1,-;block drbd0: {SAID.format(1 << 20, 4096)}"  # by a program: its facility is not the kernel's
    said = [forged, *(f"4,{number},{number},-;block drbd0: {SAID.format(8 * number, 4096)}" for number in range(3000))]
    read_fd, write_fd = os.pipe2(os.O_DIRECT)
    os.set_blocking(read_fd, False)

    class Pipe(kernel.Log):
        def __enter__(self) -> Pipe:
            self._fd = os.dup(read_fd)
            return self

        def read(self, lines: kernel.Listener) -> bool:
            for line in said[:15]:
                os.write(write_fd, line.encode())
            del said[:15]
            return super().read(lines)

    try:
        assert merged(list(in_flight.own(0, lambda: Pipe(fresh=False)))) == ((0, 3000 * 4096),)
    finally:
        os.close(read_fd)
        os.close(write_fd)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 60)), max_size=10))
def test_a_block_counts_only_where_all_of_it_was_written_so(sectors: list[Range]) -> None:
    writes = [(start * 512, length * 512) for start, length in sectors]
    covered = {at for start, length in writes for at in range(start, start + length, 512)}
    expected = {
        block for block in range(0, 300 * 512, BLOCK) if all(at in covered for at in range(block, block + BLOCK, 512))
    }
    found = whole_blocks_within(writes)
    assert {at for start, length in found for at in range(start, start + length, BLOCK)} == expected


@pytest.mark.parametrize("text", ["", "{", "{}", "[[1]]", "[[-1, 4]]", "[[1, 0]]", "[[true, 1]]", "[1]", "[[0, 1.5]]"])
def test_what_the_other_node_says_is_checked(text: str) -> None:
    with pytest.raises(ValueError):
        in_flight.from_text(text)


def test_what_is_told_is_read() -> None:
    assert in_flight.from_text(in_flight.as_text([(0, 4096), (8192, 512)])) == ((0, 4096), (8192, 512))


def test_both_nodes_are_asked_and_a_silent_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def run(line: list[str], **_: object) -> command.Result:
        asked.append(line[0])
        if line[0] == "ssh" and "--modified" in line[-1]:
            return command.Result(0, "[[8192, 4096]]", "")
        raise CommandFailed(command="x", status="exit status 1", output="no route to host")

    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(in_flight, "own", lambda minor: ((0, 4096),))
    found = in_flight.of_both(CONFIG, 0, "b")
    assert found.writes == ((0, 4096), (8192, 4096)) and found.remarks == () and found.watched is None
    monkeypatch.setattr(in_flight, "_others", lambda config, there: run(["x"]))
    found = in_flight.of_both(CONFIG, 0, "b")
    assert found.writes == ((0, 4096),) and "of b" in found.remarks[0] and "no route to host" in found.remarks[0]


def test_whether_drbd_looks_is_in_its_configuration() -> None:
    show = 'resource r0 {{ net {{ verify-alg "crc32c"; {} }} _remote_host {{ }} }}'
    with_it = drbd_config.parse_show(show.format('data-integrity-alg "crc32c";'))["r0"].nets
    assert [net.data_integrity_alg for net in with_it] == ["crc32c"]
    assert [net.data_integrity_alg for net in drbd_config.parse_show(show.format(""))["r0"].nets] == [None]


# --- the class -------------------------------------------------------------------------------------------------------


def looked(fs: Loopback, folder: Path, ranges: list[Range], **words: object) -> Meaning:
    os.sync()
    with opened(folder) as fd:
        return where(ranges, fd, fs.device, guests=RUNS, **words)  # type: ignore[arg-type]


def test_what_the_log_proves_is_a_class_and_the_block_beside_it_is_not(reflink_fs: Loopback, reflink_dir: Path) -> None:
    path = image(reflink_dir)
    write(path, ROOT + BLOCK)
    os.sync()
    proved, beside = on_device(path, ROOT), on_device(path, ROOT + BLOCK)
    found = looked(reflink_fs, reflink_dir, [proved, beside], modified=[proved])
    assert [(one.harm, one.bytes, one.parts[0].offset, one.parts[0].guest) for one in found.found] == [
        (Harm.RUNNING, BLOCK, ROOT + BLOCK, ROOT + BLOCK),
        (Harm.IN_FLIGHT, BLOCK, ROOT, ROOT),
    ]
    assert found.worst is Harm.RUNNING


def test_what_nobody_will_write_again_stays_what_it_is(reflink_fs: Loopback, reflink_dir: Path) -> None:
    """A snapshot has the block for good; swap is swap."""
    path = image(reflink_dir)
    snapshot = reflink_dir / SNAPSHOT
    clone(path, snapshot)
    in_swap, in_both = on_device(path, SWAP), on_device(path, ROOT)
    found = looked(reflink_fs, reflink_dir, [in_swap, in_both], modified=[in_swap, in_both]).found
    assert {(one.path, one.harm) for one in found} == {
        (IMAGE, Harm.SWAP),
        (SNAPSHOT, Harm.SWAP),
        (IMAGE, Harm.IN_FLIGHT),
        (SNAPSHOT, Harm.SNAPSHOT),
    }


def test_a_disk_written_with_o_direct_by_a_vm_that_runs_may_be_one(reflink_fs: Loopback, reflink_dir: Path) -> None:
    path = image(reflink_dir)
    start, _ = on_device(path, ROOT)
    name = "/".join(IMAGE.split("/")[-2:])
    (one,) = looked(reflink_fs, reflink_dir, [(start, BLOCK)], direct={name}).found
    assert one.harm is Harm.RUNNING and one.perhaps_in_flight, "the harm stays: nothing proves it"
    (one,) = looked(reflink_fs, reflink_dir, [(start, BLOCK)], direct=set()).found
    assert not one.perhaps_in_flight
    os.sync()
    with opened(reflink_dir) as fd:
        off = {100: Guest(100, "VM", False, "pve1", "web")}
        (one,) = where([(start, BLOCK)], fd, reflink_fs.device, guests=off, direct={name}).found
    assert not one.perhaps_in_flight, "nobody writes it"


def test_which_disks_are_written_with_o_direct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a/qemu-server"
    folder.mkdir(parents=True)
    (folder / "100.conf").write_text(
        "scsi0: ha:100/vm-100-disk-0.raw,size=1G\nscsi1: ha:100/vm-100-disk-1.raw,cache=writeback\n"
        "scsi2: file=alias:100/vm-100-disk-2.raw,cache=directsync\nide2: ha:iso/x.iso,media=cdrom\n"
    )
    real = guests.find_drives
    monkeypatch.setattr(guests, "find_drives", lambda storage, path: real(storage, path, str(tmp_path)))
    assert guests.direct_disks({"ha", "alias"}, "/mnt/pve/ha") == {"100/vm-100-disk-0.raw", "100/vm-100-disk-2.raw"}
    monkeypatch.setattr(guests, "find_drives", lambda storage, path: real(storage, path, str(tmp_path / "none")))
    assert guests.direct_disks({"ha"}, "/mnt/pve/ha") == frozenset()


FOUND = Found(Harm.RUNNING, IMAGE, "image", "partition 1", (), 1, BLOCK, perhaps_in_flight=True)


@pytest.mark.parametrize(
    ("watched", "told"),
    [(None, "data-integrity-alg in net { }"), (False, "data-integrity-alg in net { }"), (True, "makes it less likely")],
)
def test_a_possibility_is_told_with_what_would_prove_it(watched: bool | None, told: str) -> None:
    text = "\n".join(where_text.lines(Meaning((FOUND,), 1, BLOCK, watched=watched)))
    assert "Nothing proves it, so take it for damage" in text and told in text
    text = "\n".join(where_text.lines(Meaning((replace(FOUND, perhaps_in_flight=False),), 1, BLOCK)))
    assert "data-integrity-alg" not in text


def test_what_is_proved_is_to_be_looked_at_again_and_not_repaired() -> None:
    found = Meaning((replace(FOUND, harm=Harm.IN_FLIGHT, perhaps_in_flight=False),), 1, BLOCK)
    (one,) = repairs.repairs(found, Mirror("ha", "/mnt/pve/ha", "r0"))
    assert one.title == "See whether it is written again" and "pvedrbdstor verify ha" in one.commands[0][1]
    assert Harm.WORK.rank < Harm.IN_FLIGHT.rank < Harm.SWAP.rank
