"""The bench on this machine: both sides on XFS, which reflinks as OCFS2 does, on a sparse file."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import fixtures
from bench.goals import Comparison, Faster, NoGoal, Series, Timing, Within
from bench.perl_side import BenchError, perl_sides
from bench.rig import Rig, bare_ficlone, qemu_img
from bench.service import Costs, MeasuringDispatcher, open_unjudged
from tests.backend import start_backend
from tests.loopback import Loopback

Progress = Callable[[str], None]
_FILE_SYSTEM_MIB = 200 * 1024  # an image larger than its file system is refused
_FAST, _LISTS, _SLOW = 30, 100, 2  # repetitions of what takes milliseconds, of our lists, and of what takes seconds
_SETTLE = 0.05
_BLOCK = 10  # calls of one side in a row, so that a call does not find the caches as the other side left them
_SLOW_ENOUGH = 10.0  # seconds after which a slow thing is not done again

LIST_GOAL = Faster(200, limit=0.025)
REFLINK_GOAL = Within(1.3, plus=0.002)

_SOME_IMAGE = f"{fixtures.FIRST_GUEST}/vm-{fixtures.FIRST_GUEST}-disk-0.raw"
_TEMPLATE = "100/base-100-disk-0.raw"

OURS, BARE, BASE = "plugin, service, disk", "bare FICLONE", "base class"


def compare(progress: Progress, tree: str | None) -> list[Comparison]:
    """Measure everything; takes one to two minutes. ``tree``: the real PVE modules, or None for the re-enactment."""
    with _rigs(tree) as rig:
        progress("1000 raw images")
        raw = rig("raw")
        fixtures.fill_raw(raw.storage)
        rows = [_list(raw, "list 1000 raw images"), _free_template(raw), _size_info(raw, _BLOCK)]
        progress("1000 qcow2 images")
        qcow2 = rig("qcow2")
        fixtures.fill_qcow2(qcow2.storage)
        rows.insert(1, _list(qcow2, "list 1000 qcow2 images"))
        progress("one image at a time")
        few = rig("few")
        rows += [_alloc(few), *reflinks(few)]
        rows += [_linked_clone(few, rows[-1]), _size_info(raw, 1), *_alone(few, raw)]
    return rows


@contextmanager
def _rigs(tree: str | None) -> Iterator[Callable[[str], Rig]]:
    """Makes storages by name, all behind one service and one Perl process."""
    with Loopback(_FILE_SYSTEM_MIB, kind="xfs") as device, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        record = Path(folder) / "costs"
        with (
            start_backend(Path(folder), lambda: MeasuringDispatcher(record, open_unjudged)) as backend,
            perl_sides(backend.socket_path, tree) as perl,
        ):
            costs = Costs(record)
            yield lambda name: Rig(perl, costs, fixtures.new_storage(device.path, name), backend.pid)


def _list(rig: Rig, title: str) -> Comparison:
    """Both sides in turn; they have to list the same."""
    ours: list[Timing] = []
    base: list[Timing] = []
    _expect_same(rig.mirror("list").result, (first := rig.base("list")).result)
    base.append(first.timing)
    for _ in range(_SLOW):
        ours += [rig.mirror("list").timing for _ in range(_LISTS // _SLOW)]
        if len(base) < _SLOW and base[0].total < _SLOW_ENOUGH:
            base.append(rig.base("list").timing)
    return Comparison(title, Series(OURS, tuple(ours)), Series(BASE, tuple(base)), LIST_GOAL)


def _expect_same(ours: list[dict[str, object]], base: list[dict[str, object]]) -> None:
    """Raises BenchError unless both sides say the same of the same 1000 images."""
    expected = fixtures.GUESTS * fixtures.DISKS
    mine, theirs = (_normalized(images) for images in (ours, base))
    if mine != theirs or len(mine) != expected:
        different = sorted(set(mine) ^ set(theirs))[:2]
        raise BenchError(f"not the same {expected} images on both sides: {len(mine)} and {len(theirs)}, {different}")


def _normalized(images: list[dict[str, object]]) -> list[tuple[str, ...]]:
    keys = ("format", "size", "vmid", "used", "parent", "ctime")
    return sorted((str(image["volid"]).partition(":")[2], *(str(image[key]) for key in keys)) for image in images)


def _free_template(rig: Rig) -> Comparison:
    """What vdisk_free does under the storage's lock: is a linked clone of it in the whole storage, then free it."""

    def template() -> str:
        made = rig.mirror("alloc", 100, "raw", fixtures.IMAGE_SIZE >> 10).result
        return str(rig.mirror("create_base", made).result)

    ours: list[Timing] = []
    base: list[Timing] = []
    for _ in range(_SLOW):
        for _ in range(_FAST // _SLOW):
            ours.append(rig.mirror("free_under_lock", template()).timing)
        if not base or base[0].total < _SLOW_ENOUGH:
            base.append(rig.base("free_under_lock", template()).timing)
    title = "free a template, 1000 images present"
    return Comparison(title, Series(OURS, tuple(ours)), Series(BASE, tuple(base)), Faster(200))


def _size_info(rig: Rig, block: int) -> Comparison:
    ours, base = _in_turn(
        lambda: rig.mirror("size_info", _SOME_IMAGE).timing,
        lambda: rig.base("size_info", _SOME_IMAGE).timing,
        _FAST,
        block,
    )
    if block > 1:
        return Comparison("size of one image", Series(OURS, ours), Series(BASE, base), Faster(10))
    title = "size, each call after one of the other side"
    return Comparison(title, Series(OURS, ours), Series(BASE, base), NoGoal(), pictured=False)


def _alloc(rig: Rig) -> Comparison:
    """Every image is the first one of its guest, so that the base class has none to look at for a free name."""
    guests = iter(range(2000, 3000))
    kib = fixtures.IMAGE_SIZE >> 10
    ours, base = _in_turn(
        lambda: rig.mirror("alloc", next(guests), "raw", kib).timing,
        lambda: rig.base("alloc", next(guests), "raw", kib, then_sync=True).timing,
        _FAST,
        _BLOCK,
    )
    return Comparison("alloc raw, 32 GiB sparse", Series(OURS, ours), Series(BASE, base), Faster(4))


def reflinks(rig: Rig, data_mib: int = 200) -> list[Comparison]:
    """Snapshot and clone of a 10 GiB image with 200 MiB of data, each in turn with the bare ioctl on the same file."""
    folder = rig.storage / "images" / "100"
    fixtures.image_with_data(folder / "vm-100-disk-0.raw", 10 << 30, data_mib)
    image = "100/vm-100-disk-0.raw"

    def snapshot() -> Timing:
        timing = rig.mirror("snapshot", image, "bench").timing
        rig.mirror("snapshot_delete", image, "bench")
        return timing

    ours, bare = _in_turn(snapshot, lambda: bare_ficlone(folder / "vm-100-disk-0.raw", folder), _FAST, settle=_SETTLE)
    title = "snapshot, 10 GiB with 200 MiB of data"
    rows = [Comparison(title, Series(OURS, ours), Series(BARE, bare), REFLINK_GOAL)]

    rig.mirror("create_base", image)

    def clone() -> Timing:
        made = rig.mirror("clone", _TEMPLATE, 101)
        rig.mirror("free", made.result)
        return made.timing

    ours, bare = _in_turn(clone, lambda: bare_ficlone(folder / "base-100-disk-0.raw", folder), _FAST, settle=_SETTLE)
    title = "clone, 10 GiB with 200 MiB of data"
    rows.append(Comparison(title, Series(OURS, ours), Series(BARE, bare), REFLINK_GOAL))
    return rows


def _linked_clone(rig: Rig, clone: Comparison) -> Comparison:
    """For information: the base class's clone of the same template, a qcow2 image backed by it."""

    def linked_clone() -> Timing:
        made = rig.base("clone", _TEMPLATE, 102)
        (rig.storage / "images" / str(made.result).split("/", 2)[2]).unlink()
        return made.timing

    linked = tuple(linked_clone() for _ in range(_FAST // 3))
    return Comparison(
        "the same clone, against a linked clone", clone.ours, Series(BASE, linked), NoGoal(), pictured=False
    )


def _alone(few: Rig, raw: Rig) -> list[Comparison]:
    """Controls: the programs of the base class without its Perl, against our whole line."""
    path, new = str(raw.storage / "images" / _SOME_IMAGE), few.storage / "control.raw"
    ours, info = _in_turn(
        lambda: raw.mirror("size_info", _SOME_IMAGE).timing,
        lambda: qemu_img("info", "--output=json", "-f", "raw", path),
        _FAST,
        _BLOCK,
    )
    rows = [
        Comparison(
            "size, against qemu-img alone", Series(OURS, ours), Series("qemu-img info", info), NoGoal(), pictured=False
        )
    ]

    def create() -> Timing:
        timing = qemu_img("create", "-f", "raw", str(new), str(fixtures.IMAGE_SIZE))
        new.unlink()
        return timing

    guests = iter(range(3000, 4000))
    ours, made = _in_turn(
        lambda: few.mirror("alloc", next(guests), "raw", fixtures.IMAGE_SIZE >> 10).timing, create, _FAST, _BLOCK
    )
    rows.append(
        Comparison(
            "alloc, against qemu-img alone",
            Series(OURS, ours),
            Series("qemu-img create", made),
            NoGoal(),
            pictured=False,
        )
    )
    return rows


def _in_turn(
    ours: Callable[[], Timing], reference: Callable[[], Timing], count: int, block: int = 1, settle: float = 0.0
) -> tuple[tuple[Timing, ...], tuple[Timing, ...]]:
    """Both in turn, ``block`` of each at a time, until there are ``count`` of each; the first of a block does not count.

    ``settle``: seconds to wait before each, where blocks of a removed file are given back after its removal returns.
    """

    def some(work: Callable[[], Timing]) -> list[Timing]:
        timings = []
        for _ in range(block + 1 if block > 1 else 1):
            time.sleep(settle)
            timings.append(work())
        return timings[-block:]

    some(ours), some(reference)
    rounds = [(some(ours), some(reference)) for _ in range(count // block)]
    mine, theirs = ([timing for part in side for timing in part] for side in zip(*rounds, strict=True))
    return tuple(mine), tuple(theirs)
