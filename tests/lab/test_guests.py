"""Real guests inside the nodes: what they were told is on their disk stays there, whatever happens around them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.lab import storage
from tests.lab.cluster import Cluster
from tests.lab.guests.acknowledged import Said, gaps, lines, longest_silence
from tests.lab.guests.machine import DISK_SIZE, Guest, guest
from tests.lab.results import Results

# Seconds without an acknowledged write, for a guest that is emulated on a loaded machine.
MIGRATION_STALL, SNAPSHOT_STALL = 10.0, 5.0


@pytest.fixture
def cache() -> str:
    """The disk's cache mode."""
    return "none"


@pytest.fixture
def counting(volumes: Cluster, vmid: int, cache: str) -> Iterator[Guest]:
    """A guest that runs on node a and counts."""
    if volumes.backend.kind == "tcg":
        pytest.skip("a guest emulated in an emulated node takes minutes for every step")
    with guest(vmid, storage.alloc(volumes.a, vmid, DISK_SIZE), cache) as made:
        made.start(volumes.a)
        yield made


@pytest.mark.parametrize(
    ("cache", "round_trips"),
    [
        ("none", 1),
        pytest.param("none", 10, marks=pytest.mark.soak),
        pytest.param("writeback", 10, marks=pytest.mark.soak),
    ],
)
def test_guest_migrates_back_and_forth_without_losing_a_write(
    volumes: Cluster, counting: Guest, round_trips: int, results: Results
) -> None:
    for trip, target in enumerate([volumes.b, volumes.a] * round_trips, start=1):
        begun = time.monotonic()
        migration = counting.migrate(target)
        counting.wait_for_writes(time.monotonic())
        silence = longest_silence(counting.acknowledged.said(), begun)
        results.row(
            "Live migration of a guest that writes",
            key=("cache", "trip"),
            cache=counting.cache,
            trip=trip,
            to=target.name,
            seconds=f"{migration.seconds:.1f}",
            downtime_by_QEMU_in_ms=migration.downtime_ms,
            longest_time_without_a_write_in_ms=round(silence * 1000),
        )
        assert silence < MIGRATION_STALL
    counting.check_console()
    counting.stop()
    for node in volumes.nodes:
        counting.check_disk(node, counting.acknowledged.last())


@pytest.mark.parametrize("snapshots", [1, pytest.param(10, marks=pytest.mark.soak)])
def test_guest_rolled_back_finds_what_it_had_written_before_the_snapshot(
    volumes: Cluster, counting: Guest, snapshots: int, results: Results
) -> None:
    a, b = volumes.nodes
    before = 0
    for number in range(snapshots):
        counting.wait_for_writes(time.monotonic())
        before, begun = counting.acknowledged.last(), time.monotonic()
        pause = counting.snapshot(f"s{number}")
        counting.wait_for_writes(time.monotonic())
        silence = longest_silence(counting.acknowledged.said(), begun)
        results.row(
            "Snapshot of a guest that writes, paused meanwhile",
            snapshot=number + 1,
            paused_in_ms=round(pause.paused * 1000),
            of_it_in_the_storage_in_ms=round(pause.storage * 1000),
            longest_time_without_a_write_in_ms=round(silence * 1000),
        )
        assert silence < SNAPSHOT_STALL
    newest = f"s{snapshots - 1}"
    with pytest.raises(storage.PluginError, match=r"is open in QEMU on node nodea\."):
        storage.call(a, "volume_snapshot_rollback", counting.volume, newest)
    counting.check_console()
    counting.stop()
    counting.check_disk(b, counting.acknowledged.last())
    taken = counting.check_disk(b, before, newest)
    assert taken < counting.acknowledged.last()
    storage.call(b, "volume_snapshot_rollback", counting.volume, newest)
    counting.start(b)
    assert counting.found() == taken


@pytest.mark.soak
def test_linked_clone_of_a_template_goes_on_from_it_on_the_other_node(
    volumes: Cluster, counting: Guest, vmid: int
) -> None:
    a, b = volumes.nodes
    counting.wait_for_writes(time.monotonic())
    counting.stop()
    template = str(storage.call(a, "vdisk_create_base", counting.volume).value)
    counting.volume = template
    copied = counting.check_disk(b, counting.acknowledged.last())
    with guest(vmid + 1, str(storage.call(b, "vdisk_clone", template, vmid + 1, None).value)) as clone:
        clone.start(b)
        assert clone.found() == copied
        clone.stop()
        clone.check_disk(a, clone.acknowledged.last())
    assert counting.check_disk(a, copied) == copied


def test_lines_cut_by_a_migration_are_put_together() -> None:
    chunks = [(1.0, b"found 0\nack 1\na"), (2.0, b"ck"), (3.0, b" 2\n[ 5.1] hung task\nack 3\nack")]
    assert lines(chunks) == [Said(1.0, "found", 0), Said(1.0, "ack", 1), Said(3.0, "ack", 2), Said(3.0, "ack", 3)]


def test_numbers_left_out_or_said_twice_are_gaps_but_a_start_is_none() -> None:
    said = [Said(1.0, "ack", 7), Said(2.0, "found", 8), Said(3.0, "ack", 9), Said(4.0, "ack", 9), Said(5.0, "ack", 11)]
    assert gaps(said) == [(said[2], said[3]), (said[3], said[4])]


def test_silence_counts_when_it_ends_after_the_moment_asked_for() -> None:
    said = [Said(1.0, "ack", 1), Said(9.0, "ack", 2), Said(11.0, "ack", 3)]
    assert longest_silence(said, since=0.0) == 8.0
    assert longest_silence(said, since=8.5) == 8.0
    assert longest_silence(said, since=9.0) == 2.0
