"""Arbitrary sequences of operations, checked after every step against a model of a few lines (Hypothesis, stateful).

The model knows, for each volume, its size, contents and snapshots; every operation is predicted from it, errors too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pvedrbdstor.errors import (
    Error,
    HasSnapshots,
    ReadOnlyVolume,
    ShrinkRefused,
    SnapshotExists,
    SnapshotMissing,
    VolumeExists,
    VolumeMissing,
)
from pvedrbdstor.volumes import images, renames, snapshots, templates
from pvedrbdstor.volumes.names import parse_volume
from tests.examples import examples
from tests.loopback import Loopback, fresh_folder
from tests.volumes.support import KIB, Area

GUESTS = st.sampled_from([100, 101])
NUMBERS = st.integers(0, 2)
SNAPS = st.sampled_from(["alpha", "beta", "gamma"])
SIZES = st.integers(1, 64).map(lambda n: n * 4 * KIB)
MARK = 16


@dataclass
class Image:
    """What a volume should be: its size in bytes, the mark written at its beginning, its snapshots, oldest first."""

    size: int
    mark: bytes
    snapshots: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def copy(self) -> Image:
        return Image(self.size, self.mark)


@contextmanager
def expecting(error: type[Error] | None) -> Iterator[None]:
    if error is None:
        yield
        return
    with pytest.raises(error):
        yield


class Volumes(RuleBasedStateMachine):
    """The rules: one for every operation, on names that may or may not exist."""

    file_system: Loopback

    def __init__(self) -> None:
        super().__init__()
        self.cleanup = ExitStack()
        self.model: dict[str, Image] = {}
        self.counter = 0

    @initialize()
    def start(self) -> None:
        self.area = Area(self.cleanup.enter_context(fresh_folder(self.file_system.path)))

    def teardown(self) -> None:
        self.cleanup.close()

    # --- names -----------------------------------------------------------------------------------------------

    @staticmethod
    def volume(guest: int, number: int) -> str:
        return f"{guest}/vm-{guest}-disk-{number}.raw"

    @staticmethod
    def base_of(volume: str) -> str:
        return volume.replace("/vm-", "/base-")

    def first_free(self, guest: int) -> str:
        for number in range(100):
            volume = self.volume(guest, number)
            if volume not in self.model and self.base_of(volume) not in self.model:
                return volume
        raise AssertionError("the model never makes that many")

    def existing(self) -> st.SearchStrategy[str]:
        return st.sampled_from(sorted(self.model))

    # --- rules -----------------------------------------------------------------------------------------------

    @rule(guest=GUESTS, size=SIZES)
    def alloc(self, guest: int, size: int) -> None:
        expected = self.first_free(guest)
        assert str(self.area.do(images.alloc_image, guest, "raw", None, size)) == expected
        self.model[expected] = Image(size, bytes(MARK))

    @rule(guest=GUESTS, number=NUMBERS, size=SIZES)
    def alloc_named(self, guest: int, number: int, size: int) -> None:
        volume = self.volume(guest, number)
        with expecting(VolumeExists if volume in self.model else None):
            self.area.do(images.alloc_image, guest, "raw", volume.partition("/")[2], size)
            self.model[volume] = Image(size, bytes(MARK))

    @rule(guest=GUESTS, number=NUMBERS, base=st.booleans())
    def free(self, guest: int, number: int, base: bool) -> None:
        volume = self.volume(guest, number)
        volume = self.base_of(volume) if base else volume
        with expecting(None if volume in self.model else VolumeMissing):
            self.area.do(images.free_image, parse_volume(volume))
        self.model.pop(volume, None)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        volume = data.draw(self.existing())
        if "/base-" in volume:
            return
        self.counter += 1
        mark = f"{self.counter:>{MARK}}".encode()
        self.area.write(volume, mark)
        self.model[volume].mark = mark

    @precondition(lambda self: self.model)
    @rule(data=st.data(), snap=SNAPS)
    def snapshot(self, data: st.DataObject, snap: str) -> None:
        volume = data.draw(self.existing())
        image = self.model[volume]
        error = ReadOnlyVolume if "/base-" in volume else SnapshotExists if snap in image.snapshots else None
        with expecting(error):
            self.area.do(snapshots.create_snapshot, parse_volume(volume), snap)
            image.snapshots[snap] = (image.size, image.mark)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), snap=SNAPS)
    def delete_snapshot(self, data: st.DataObject, snap: str) -> None:
        volume = data.draw(self.existing())
        image = self.model[volume]
        with expecting(None if snap in image.snapshots else SnapshotMissing):
            self.area.do(snapshots.delete_snapshot, parse_volume(volume), snap)
        image.snapshots.pop(snap, None)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), snap=SNAPS)
    def roll_back(self, data: st.DataObject, snap: str) -> None:
        volume = data.draw(self.existing())
        image = self.model[volume]
        with expecting(None if snap in image.snapshots else SnapshotMissing):
            self.area.do(snapshots.rollback, parse_volume(volume), snap)
            image.size, image.mark = image.snapshots[snap]

    @precondition(lambda self: self.model)
    @rule(data=st.data(), size=SIZES)
    def resize(self, data: st.DataObject, size: int) -> None:
        volume = data.draw(self.existing())
        image = self.model[volume]
        error = ReadOnlyVolume if "/base-" in volume else ShrinkRefused if size < image.size else None
        with expecting(error):
            self.area.do(images.resize_image, parse_volume(volume), size)
            image.size = size

    @precondition(lambda self: self.model)
    @rule(data=st.data(), guest=GUESTS, number=st.none() | NUMBERS)
    def rename(self, data: st.DataObject, guest: int, number: int | None) -> None:
        volume = data.draw(self.existing())
        target = self.first_free(guest) if number is None else self.volume(guest, number)
        error = ReadOnlyVolume if "/base-" in volume else VolumeExists if target in self.model else None
        with expecting(error):
            name = None if number is None else target.partition("/")[2]
            assert str(self.area.do(renames.rename_volume, parse_volume(volume), guest, name)) == target
            self.model[target] = self.model.pop(volume)

    @precondition(lambda self: any("/vm-" in volume for volume in self.model))
    @rule(data=st.data())
    def template(self, data: st.DataObject) -> None:
        volume = data.draw(st.sampled_from(sorted(v for v in self.model if "/vm-" in v)))
        base = self.base_of(volume)
        error = HasSnapshots if self.model[volume].snapshots else VolumeExists if base in self.model else None
        with expecting(error):
            assert str(self.area.do(templates.create_base, parse_volume(volume))) == base
            self.model[base] = self.model.pop(volume)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), guest=GUESTS, snap=st.none() | SNAPS)
    def clone(self, data: st.DataObject, guest: int, snap: str | None) -> None:
        volume = data.draw(self.existing())
        image = self.model[volume]
        with expecting(SnapshotMissing if snap is not None and snap not in image.snapshots else None):
            expected = self.first_free(guest)
            assert str(self.area.do(templates.clone_image, parse_volume(volume), guest, snap)) == expected
            size, mark = image.snapshots[snap] if snap else (image.size, image.mark)
            self.model[expected] = Image(size, mark)

    # --- what must always hold -------------------------------------------------------------------------------

    @invariant()
    def everything_is_as_the_model_says_and_nothing_is_left_over(self) -> None:
        if not hasattr(self, "area"):
            return
        seen = self.area.view()
        assert sorted(seen) == sorted(self.model)
        for volume, image in self.model.items():
            assert seen[volume].size == image.size
            assert seen[volume].immutable == ("/base-" in volume)
            assert self.area.read(volume, MARK) == image.mark
            found = {name: (size, self.area.path(volume, name)) for name, size, _ in seen[volume].snapshots}
            assert {n: s for n, (s, _) in found.items()} == {n: s for n, (s, _) in image.snapshots.items()}
            for name, (_, path) in found.items():
                assert path.open("rb").read(MARK) == image.snapshots[name][1]
        assert self.area.leftovers(seen) == []


def test_any_sequence_of_operations_does_what_the_model_says(reflink_fs: Loopback) -> None:
    class OnThisFileSystem(Volumes):
        file_system = reflink_fs

    chosen = settings(
        max_examples=examples(40),
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(OnThisFileSystem, settings=chosen)
