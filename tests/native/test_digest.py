"""native.Digester: every digest is of what is on the device, by both ways of reading, and what cannot be is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pvedrbdstor import native
from tests.examples import examples
from tests.faulty_disk import faulty_disk, loop_device_on
from tests.native.digests import ENGINES, KIB, MIB, digester, expected, noise, running

Attach = Callable[..., str]


def write(path: str | Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        assert os.write(fd, content) == len(content)
        os.fsync(fd)
    finally:
        os.close(fd)


# --- what is read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize("granularity", [4 * KIB, 64 * KIB, MIB])
def test_digests_are_of_what_the_device_holds(
    granularity: int, sector_size: int, engine: str, loop_device: Attach
) -> None:
    content = noise(9 * MIB)
    path = loop_device(9, sector_size)
    write(path, content)
    with digester(path, granularity=granularity, engine=engine) as digests:
        assert (digests.size, digests.engine) == (9 * MIB, engine)
        found = digests.run(0, 9 * MIB)
        assert found == (expected(content, granularity), {})
        assert len(found.values) == 16 * (9 * MIB // granularity)
        part = digests.run(2 * MIB, 3 * MIB)
        assert part.values == expected(content[2 * MIB : 5 * MIB], granularity)
        assert part.of(1) == xxhash.xxh3_128_digest(content[2 * MIB + granularity : 2 * MIB + 2 * granularity])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("sector_size", "tail"), [(512, 512), (512, 7 * 512), (4096, 4096), (4096, 9 * 4096)])
def test_the_last_block_of_a_device_may_be_shorter(sector_size: int, tail: int, engine: str, tmp_path: Path) -> None:
    content = noise(3 * MIB + tail)
    with faulty_disk(content, tmp_path) as disk, loop_device_on(disk, sector_size) as path:
        for granularity in (4 * KIB, 64 * KIB, MIB):
            with digester(path, granularity=granularity, engine=engine) as digests:
                assert digests.size == len(content)
                assert digests.run(0, len(content)) == (expected(content, granularity), {})
                assert digests.run(3 * MIB, tail).values == expected(content[3 * MIB :], granularity)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("size", [0, 1, 4095, 4097, 2 * MIB - 1, 2 * MIB + 1])
def test_a_file_may_end_anywhere(size: int, engine: str, reflink_dir: Path) -> None:
    content = noise(size)
    write(reflink_dir / "file", content)
    with digester(reflink_dir / "file", granularity=64 * KIB, engine=engine) as digests:
        assert digests.run(0, size) == (expected(content, 64 * KIB), {})


@pytest.mark.parametrize("engine", ENGINES)
def test_the_page_cache_has_no_say(engine: str, tmp_path: Path) -> None:
    old, new = noise(2 * MIB), noise(2 * MIB + 1)[1:]
    with faulty_disk(old, tmp_path) as disk, loop_device_on(disk) as path, open(path, "rb") as cached:
        for _ in range(10):  # the kernel may drop what is cached at any time
            disk.replace(old)
            os.posix_fadvise(cached.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            cached.seek(0)
            assert cached.read() == old
            disk.replace(new)
            cached.seek(0)
            if held := cached.read() == old:
                break
        assert held, "the cache holds what was on the device, so that this test can tell"
        with digester(path, granularity=4 * KIB, engine=engine) as digests:
            assert digests.run(0, 2 * MIB).values == expected(new, 4 * KIB)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("depth", [1, 3, 8])
def test_as_many_reads_as_wanted_are_in_flight(depth: int, engine: str, tmp_path: Path) -> None:
    content = noise(20 * 64 * KIB)
    with faulty_disk(content, tmp_path) as disk:
        disk.hang()
        options = {"granularity": 4 * KIB, "request": 64 * KIB, "depth": depth, "engine": engine}
        with digester(disk.path, **options) as digests, running(digests, len(content)) as answers:
            assert disk.wait_for_reads(depth)
            assert not disk.wait_for_reads(depth + 1, seconds=0.2)
            assert sorted(disk.asked()) == [(number * 64 * KIB, 64 * KIB) for number in range(depth)]
            disk.resume()
        assert answers == [(expected(content, 4 * KIB), {})]
        assert {length for _, length in disk.asked()} == {64 * KIB}


@pytest.mark.parametrize("engine", ENGINES)
def test_as_many_short_ranges_are_in_flight_as_wanted(engine: str, tmp_path: Path) -> None:
    content = noise(4 * MIB)
    ranges = [(number * 256 * KIB, 64 * KIB) for number in range(16)]
    with faulty_disk(content, tmp_path) as disk:
        disk.hang()
        with digester(disk.path, granularity=64 * KIB, request=64 * KIB, depth=10, engine=engine) as digests:
            answers: list[object] = []
            runner = threading.Thread(target=lambda: answers.append(digests.run_ranges(ranges)))
            runner.start()
            try:
                assert disk.wait_for_reads(10)
                assert sorted(disk.asked()) == ranges[:10]
            finally:
                disk.resume()
                runner.join()
    parts = [expected(content[start : start + length], 64 * KIB) for start, length in ranges]
    assert answers == [(b"".join(parts), {})]


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    blocks=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 4)), max_size=12),
    engine=st.sampled_from(ENGINES),
    bad=st.sets(st.integers(0, 40), max_size=6),
)
def test_any_ranges_are_answered_one_after_the_other(
    blocks: list[tuple[int, int]], engine: str, bad: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In any order, touching, overlapping, empty, and up to the end, which lies within a block."""
    size = 40 * 8 * KIB + 5000
    content = noise(size)
    unit = 8 * KIB
    ranges = [(first * unit, min(count * unit, size - first * unit)) for first, count in blocks]
    with faulty_disk(content, tmp_path_factory.mktemp("disk")) as disk:
        disk.fail(*[(number * unit, number * unit + 1) for number in bad])
        with digester(disk.path, granularity=unit, request=2 * unit, depth=3, engine=engine) as digests:
            found = digests.run_ranges(ranges)
    numbers = [start // unit + at for start, length in ranges for at in range(-(-length // unit))]
    assert set(found.errors) == {at for at, number in enumerate(numbers) if number in bad}
    for at, number in enumerate(numbers):
        if number not in bad:
            assert found.of(at) == expected(content[number * unit : (number + 1) * unit], unit)


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(1, 3 * MIB),
    granularity=st.sampled_from([1 << power for power in range(12, 21)]),
    factor=st.integers(1, 5),
    depth=st.integers(1, 5),
    engine=st.sampled_from(ENGINES),
    bad=st.lists(st.tuples(st.integers(0, 3 * MIB), st.integers(1, 64 * KIB)), max_size=4),
    short=st.dictionaries(
        st.integers(0, 767).map(lambda page: page * 4096), st.integers(1, 64).map(lambda n: n * 4096)
    ),
    data=st.data(),
)
def test_any_range_at_any_granularity_over_any_damage(
    size: int,
    granularity: int,
    factor: int,
    depth: int,
    engine: str,
    bad: list[tuple[int, int]],
    short: dict[int, int],
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    content = noise(size)
    blocks = -(-size // granularity)
    first = data.draw(st.integers(0, blocks - 1))
    last = data.draw(st.integers(first, blocks))
    start, end = first * granularity, min(last * granularity, size)
    with faulty_disk(content, tmp_path_factory.mktemp("disk")) as disk:
        damage = [(at, at + length) for at, length in bad]
        disk.fail(*damage)
        disk.fall_short(short)
        options = {"granularity": granularity, "request": granularity * factor, "depth": depth, "engine": engine}
        with digester(disk.path, **options) as digests:
            found = digests.run(start, end - start)
    # O_DIRECT reads whole sectors: what lies behind the end of a block's data cannot spoil it on a file this size.
    broken = {
        number
        for number in range(last - first)
        if any(
            at < min(start + (number + 1) * granularity, size) and start + number * granularity < bad_end
            for at, bad_end in damage
        )
    }
    assert set(found.errors) == broken
    for number in range(last - first):
        block = content[start + number * granularity : start + (number + 1) * granularity]
        assert found.of(number) == (None if number in broken else xxhash.xxh3_128_digest(block))


# --- what cannot be read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("sector_size", [512, 4096])
def test_only_the_blocks_that_cannot_be_read_are_marked(sector_size: int, engine: str, tmp_path: Path) -> None:
    content = noise(4 * MIB)
    with faulty_disk(content, tmp_path) as disk, loop_device_on(disk, sector_size) as path:
        disk.fail((MIB + 5000, MIB + 5001), (3 * MIB - 1, 3 * MIB + 1))
        with digester(path, granularity=4 * KIB, engine=engine) as digests:
            found = digests.run(MIB, 3 * MIB)
            disk.fail()
            again = digests.run(MIB, 3 * MIB)
    right = expected(content[MIB:], 4 * KIB)
    assert found.errors == {1: 5, 511: 5, 512: 5}
    assert found.of(1) is None and found.values[16:32] == bytes(16)
    assert [number for number in range(768) if found.of(number) != right[number * 16 :][:16]] == [1, 511, 512]
    assert again == (right, {})


@pytest.mark.parametrize("engine", ENGINES)
def test_a_device_that_lost_its_end_says_so_block_by_block(engine: str, loop_device: Attach) -> None:
    path = loop_device(8)
    content = noise(8 * MIB)
    write(path, content)
    backing = Path("/sys/block", os.path.basename(path), "loop/backing_file").read_text().strip()
    os.truncate(backing, 5 * MIB)
    with digester(path, granularity=MIB, engine=engine) as digests:
        found = digests.run(0, 8 * MIB)
    assert found.errors == {5: 5, 6: 5, 7: 5}
    assert found.values == expected(content[: 5 * MIB], MIB) + bytes(48)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_read_that_falls_short_is_gone_on_with(engine: str, tmp_path: Path) -> None:
    content = noise(MIB)
    with faulty_disk(content, tmp_path) as disk:
        disk.fall_short({0: 4096, 64 * KIB: 8192, 64 * KIB + 8192: 4096})
        with digester(disk.path, granularity=64 * KIB, engine=engine) as digests:
            assert digests.run(0, MIB) == (expected(content, 64 * KIB), {})
        assert disk.asked()[0] == (0, MIB)
        assert (64 * KIB + 12288, 64 * KIB - 12288) in disk.asked()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("given", [0, 100])
def test_a_block_that_ends_within_a_sector_is_unreadable(given: int, engine: str, tmp_path: Path) -> None:
    content = noise(MIB)
    with faulty_disk(content, tmp_path) as disk:
        disk.fall_short({0: given})
        with digester(disk.path, granularity=64 * KIB, engine=engine) as digests:
            found = digests.run(0, MIB)
    assert found.errors == {0: 5}
    assert found.values == bytes(16) + expected(content, 64 * KIB)[16:]


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("granularity", [0, -4096, 2 * KIB, 12 * KIB, 4095, 2 * MIB])
def test_an_impossible_granularity_is_refused(granularity: int, loop_device: Attach) -> None:
    with pytest.raises(ValueError, match="granularity"), digester(loop_device(8), granularity=granularity):
        pass


def test_a_granularity_within_a_sector_is_refused(loop_device: Attach, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not every kernel makes a loop device with sectors of more than a page.
    monkeypatch.setattr(native.digest, "logical_sector_size", lambda fd, path="": 16 * KIB)
    path = loop_device(8)
    with pytest.raises(ValueError, match="sectors of 16384"), digester(path, granularity=8 * KIB):
        pass
    with digester(path, granularity=16 * KIB) as digests:
        assert len(digests.run(0, 8 * MIB).values) == 16 * 512


@pytest.mark.parametrize(
    "options", [{"request": 32 * KIB}, {"request": 96 * KIB}, {"request": 32 * MIB}, {"depth": 0}, {"depth": 129}]
)
def test_an_impossible_way_of_reading_is_refused(options: dict[str, int], loop_device: Attach) -> None:
    with (
        pytest.raises(ValueError, match=next(iter(options))),
        digester(loop_device(8), granularity=64 * KIB, **options),
    ):
        pass


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("start", "length"),
    [(0, 9 * MIB), (8 * MIB, 64 * KIB), (9 * MIB, 0), (-64 * KIB, 64 * KIB), (64 * KIB, -64 * KIB), (1 << 70, 1 << 70)],
)
def test_a_range_beyond_the_device_is_refused(start: int, length: int, engine: str, loop_device: Attach) -> None:
    with digester(loop_device(8), granularity=64 * KIB, engine=engine) as digests:
        with pytest.raises(ValueError, match="not within"):
            digests.run(start, length)
        assert digests.run(8 * MIB, 0) == (b"", {})


@pytest.mark.parametrize(("start", "length"), [(4 * KIB, 64 * KIB), (0, 4 * KIB), (0, 65 * KIB), (1, 64 * KIB)])
def test_a_range_of_part_of_a_block_is_refused(start: int, length: int, loop_device: Attach) -> None:
    with (
        digester(loop_device(8), granularity=64 * KIB) as digests,
        pytest.raises(ValueError, match="not multiples of 65536"),
    ):
        digests.run(start, length)


def test_more_blocks_than_a_run_may_have_are_refused(loop_device: Attach) -> None:
    with (
        digester(loop_device(5 * KIB), granularity=4 * KIB) as digests,
        pytest.raises(ValueError, match="at most 1048576"),
    ):
        digests.run(0, 5 << 30)


def test_a_descriptor_with_the_page_cache_in_between_is_refused(loop_device: Attach) -> None:
    with open(loop_device(8), "rb") as cached, pytest.raises(ValueError, match="O_DIRECT"):
        native.Digester(cached.fileno(), granularity=4 * KIB)


# --- what it takes -----------------------------------------------------------------------------------------------


_WATCHED = """
import os, sys
from pvedrbdstor import native
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
with native.Digester(fd, granularity=65536, engine=sys.argv[2]) as digests:
    digests.run(0, 64 << 20)
    before = peak()
    for start in range(0, digests.size, 64 << 20):
        digests.run(start, 64 << 20)
    print(before, peak())
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_memory_does_not_depend_on_how_much_is_read(engine: str, loop_device: Attach) -> None:
    argv = [sys.executable, "-c", _WATCHED, loop_device(2048), engine]
    before, after = map(int, subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split())
    assert after - before < 512, f"{before} KiB at first, {after} KiB after 2 GiB"
    assert after < 64 * KIB


_FILTERED = """
import ctypes, errno, os, struct, sys
from pvedrbdstor import native
call, error = int(sys.argv[2]), int(sys.argv[3])
# seccomp(2): what the filter answers to one call; allow all others
program = b"".join(struct.pack("=HBBI", *line) for line in (
    (0x20, 0, 0, 0), (0x15, 0, 1, call), (0x06, 0, 0, 0x00050000 | error), (0x06, 0, 0, 0x7FFF0000)))
lines = ctypes.create_string_buffer(program, len(program))
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("lines", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
wanted = Filter(len(program) // 8, ctypes.addressof(lines))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(wanted), 0, 0) == 0
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
try:
    native.Digester(fd, granularity=4096, engine="io_uring", path="device")
except OSError as refused:
    assert (refused.errno, refused.filename) == (error, "device"), refused
else:
    sys.exit("io_uring was not refused")
with native.Digester(fd, granularity=4096) as digests:
    print(digests.engine, digests.run(0, digests.size).values.hex())
"""
_IO_URING_SETUP, _IO_URING_ENTER = 425, 426


@pytest.mark.parametrize(("call", "error"), [(_IO_URING_SETUP, 38), (_IO_URING_SETUP, 1), (_IO_URING_ENTER, 1)])
def test_threads_read_where_the_kernel_refuses_io_uring(call: int, error: int, loop_device: Attach) -> None:
    path = loop_device(2)
    content = noise(2 * MIB)
    write(path, content)
    argv = [sys.executable, "-c", _FILTERED, path, str(call), str(error)]
    said = subprocess.run(argv, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert said.stdout.split() == ["threads", expected(content, 4 * KIB).hex()]


def test_io_uring_is_what_auto_takes_here(loop_device: Attach) -> None:
    with digester(loop_device(8), granularity=4 * KIB) as digests:
        assert digests.engine == "io_uring"
