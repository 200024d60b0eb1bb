"""Activation of a storage that is not mounted brings it up first; no other method does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pvedrbdstor.call import Call
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import BringUpRefused, NotMounted, StillComingUp
from pvedrbdstor.service.methods import METHODS, Dispatcher
from pvedrbdstor.volumes.store import Store
from tests.backend_any_folder import open_folder

PARAMS = {"volname": "100/vm-100-disk-0.raw", "volids": None, "vmid": 100, "snap": "s", "content_dirs": ["images"]}


class Node:
    """Mounted once it was brought up, unless that raises."""

    def __init__(self, error: Exception | None = None, mounted: bool = False) -> None:
        self.mounted = mounted
        self.error = error
        self.asked: list[float] = []
        self.dispatcher = Dispatcher(self.open_store, self.bring_up)

    @contextmanager
    def open_store(self, config: StorageConfig) -> Iterator[Store]:
        if not self.mounted:
            raise NotMounted(storage=config.id, path=config.path, resource=config.resource)
        with open_folder(config) as store:
            yield store

    def bring_up(self, config: StorageConfig, call: Call) -> None:
        self.asked.append(call.timeout)
        if self.error is not None:
            raise self.error
        self.mounted = True

    def dispatch(self, method: str, path: Path) -> object:
        storage = {"id": "ha", "path": str(path), "resource": "r0"}
        return self.dispatcher.dispatch(method, {"storage": storage, **PARAMS}, Call(method, "ha", 40))


def test_activation_brings_up_what_is_not_mounted_and_goes_on(reflink_dir: Path) -> None:
    node = Node()
    assert node.dispatch("activate_storage", reflink_dir) is None
    assert node.asked == [40]
    assert (reflink_dir / "images").is_dir()


def test_activation_of_what_is_mounted_asks_for_nothing(reflink_dir: Path) -> None:
    node = Node(mounted=True)
    node.dispatch("activate_storage", reflink_dir)
    assert node.asked == []


@pytest.mark.parametrize(
    "error",
    [
        StillComingUp(storage="ha", step="mounting", seconds=3),
        BringUpRefused(storage="ha", cause="it is so", remedy="Do this"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_why_it_is_not_up_reaches_the_caller(reflink_dir: Path, error: Exception) -> None:
    with pytest.raises(type(error)):
        Node(error).dispatch("activate_storage", reflink_dir)


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"activate_storage"}))
def test_no_other_method_brings_anything_up(reflink_dir: Path, method: str) -> None:
    node = Node()
    with pytest.raises(NotMounted):
        node.dispatch(method, reflink_dir)
    assert node.asked == []
