"""native.Digester on a device that does not answer: it can be cancelled, interrupted, closed, and gone on with."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pvedrbdstor import native
from tests.faulty_disk import FaultyDisk, faulty_disk
from tests.native.digests import ENGINES, KIB, MIB, digester, expected, noise, running

CONTENT = noise(4 * MIB)
SOON = 5.0  # seconds; it takes 0.1, and one more for a close


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FaultyDisk]:
    with faulty_disk(CONTENT, tmp_path) as made:
        yield made


@pytest.fixture(params=ENGINES)
def hanging(request: pytest.FixtureRequest, disk: FaultyDisk) -> Iterator[native.Digester]:
    """A digester of ``disk``, which does not answer."""
    disk.hang()
    with digester(disk.path, granularity=4 * KIB, request=64 * KIB, engine=request.param) as digests:
        yield digests


def left() -> tuple[int, int]:
    """The threads and descriptors of this process."""
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def eventually(so: Callable[[], bool], within: float = SOON) -> bool:
    end = time.monotonic() + within
    while not so():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@contextmanager
def handler(number: int, action: Callable[[], None]) -> Iterator[None]:
    def handle(_number: int, _frame: object) -> None:
        action()

    before = signal.signal(number, handle)
    try:
        yield
    finally:
        signal.signal(number, before)


@contextmanager
def signalled_when_asked(disk: FaultyDisk, number: int) -> Iterator[None]:
    """As soon as a read waits for the disk this process gets the signal."""

    def wait() -> None:
        if disk.wait_for_reads(1, SOON):
            os.kill(os.getpid(), number)

    waiter = threading.Thread(target=wait)
    waiter.start()
    try:
        yield
    finally:
        waiter.join()


def test_another_thread_cancels_a_run(hanging: native.Digester, disk: FaultyDisk) -> None:
    with running(hanging, len(CONTENT)) as answers:
        assert disk.wait_for_reads(1, SOON)
        hanging.cancel()
        assert eventually(lambda: bool(answers))
    (cancelled,) = answers
    assert isinstance(cancelled, native.Cancelled)
    assert (cancelled.errno, cancelled.filename) == (errno.ECANCELED, str(disk.path))
    disk.resume()
    with pytest.raises(native.Cancelled):
        hanging.run(0, 4 * KIB)


def test_a_signal_handler_cancels_a_run(hanging: native.Digester, disk: FaultyDisk) -> None:
    started = time.monotonic()
    with (
        handler(signal.SIGUSR1, hanging.cancel),
        signalled_when_asked(disk, signal.SIGUSR1),
        pytest.raises(native.Cancelled),
    ):
        hanging.run(0, len(CONTENT))
    assert time.monotonic() - started < SOON


def test_a_handler_that_raises_ends_the_run_and_the_next_one_is_right(
    hanging: native.Digester, disk: FaultyDisk
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with (
        handler(signal.SIGUSR1, interrupt),
        signalled_when_asked(disk, signal.SIGUSR1),
        pytest.raises(KeyboardInterrupt),
    ):
        hanging.run(0, len(CONTENT))
    disk.resume()
    for _ in range(3):
        assert hanging.run(MIB, MIB) == (expected(CONTENT[MIB : 2 * MIB], 4 * KIB), {})


def test_what_comes_late_is_not_taken_for_an_answer_of_the_next_run(hanging: native.Digester, disk: FaultyDisk) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with (
        handler(signal.SIGUSR1, interrupt),
        signalled_when_asked(disk, signal.SIGUSR1),
        pytest.raises(KeyboardInterrupt),
    ):
        hanging.run(0, len(CONTENT))
    with running(hanging, 2 * MIB, start=2 * MIB) as answers:
        assert not eventually(lambda: bool(answers), within=0.3)
        disk.resume()
    assert answers == [(expected(CONTENT[2 * MIB :], 4 * KIB), {})]


def test_closing_gives_up_on_a_device_that_does_not_answer(disk: FaultyDisk) -> None:
    before = left()
    for engine in ENGINES:
        disk.hang()
        with digester(disk.path, granularity=4 * KIB, engine=engine) as digests:
            seen = len(disk.asked())
            started = time.monotonic()
            with running(digests, len(CONTENT)) as answers:
                assert disk.wait_for_reads(seen + 1, SOON)
                digests.close()
            assert time.monotonic() - started < SOON
            assert isinstance(answers[0], native.Cancelled)
            with pytest.raises(ValueError, match="closed"):
                digests.run(0, 4 * KIB)
        disk.resume()
    assert eventually(lambda: left() == before), "threads or descriptors are left"


def test_a_close_during_a_run_takes_effect_at_its_end(disk: FaultyDisk) -> None:
    for engine in ENGINES:
        disk.hang()
        fd = os.open(disk.path, os.O_RDONLY | os.O_DIRECT)
        before = left()
        digests = native.Digester(fd, granularity=4 * KIB, engine=engine)  # type: ignore[arg-type]
        assert left() != before
        seen = len(disk.asked())
        with running(digests, len(CONTENT)):
            assert disk.wait_for_reads(seen + 1, SOON)
            digests.close()
            disk.resume()
        assert eventually(lambda was=before: left() == was)  # type: ignore[misc]
        os.close(fd)


def test_a_second_run_at_the_same_time_is_refused(hanging: native.Digester, disk: FaultyDisk) -> None:
    with running(hanging, len(CONTENT)) as answers:
        assert disk.wait_for_reads(1, SOON)
        with pytest.raises(OSError) as caught:
            hanging.run(0, 4 * KIB)
        assert (caught.value.errno, caught.value.filename) == (errno.EBUSY, str(disk.path))
        disk.resume()
    assert answers == [(expected(CONTENT, 4 * KIB), {})]


def test_the_caller_may_close_its_descriptor(disk: FaultyDisk) -> None:
    for engine in ENGINES:
        fd = os.open(disk.path, os.O_RDONLY | os.O_DIRECT)
        with native.Digester(fd, granularity=4 * KIB, engine=engine) as digests:  # type: ignore[arg-type]
            os.close(fd)
            assert digests.run(0, MIB).values == expected(CONTENT[:MIB], 4 * KIB)


def test_nothing_is_left_when_it_is_closed(disk: FaultyDisk) -> None:
    def mapped() -> int:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")

    def use_some() -> None:
        for engine in ENGINES * 5:
            with digester(disk.path, granularity=4 * KIB, engine=engine) as digests:
                digests.run(0, MIB)

    before = left()
    use_some()
    at_first = mapped()
    use_some()
    assert mapped() - at_first < 10 * MIB  # one has more than that
    deadline = time.monotonic() + 20
    while left() != before and time.monotonic() < deadline:  # the kernel ends an io_uring's threads after it is closed
        time.sleep(0.05)
    assert left() == before
