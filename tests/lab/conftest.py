"""Fixtures of the lab: one formed cluster for all tests of the session, and evidence of every failure on it."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests.lab import evidence, splitting, storage, verifying
from tests.lab.cluster import Cluster
from tests.lab.formation import on_each
from tests.lab.guests.machine import NODE_MEMORY
from tests.lab.results import Results

_vmids = itertools.count(1000, 2)
_SMALL_MEMORY, _SMALL_DISK = 320, 256 << 20


@pytest.fixture(scope="session")
def results() -> Results:
    """Where measured numbers go: into the tables of docs/lab-results.md when `./dev soak` runs."""
    return Results()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes with the file system mounted and room for a real guest. Tests leave both nodes running and mounted."""
    with Cluster(memory=NODE_MEMORY) as formed:
        yield formed


@pytest.fixture(scope="session")
def storage_service(cluster: Cluster) -> Cluster:
    """The cluster with the service running on both nodes."""
    storage.install(cluster.nodes)
    return cluster


@pytest.fixture
def volumes(storage_service: Cluster) -> Iterator[Cluster]:
    """The cluster with an empty storage; afterwards all volumes are freed through the plugin, and nothing may be left.

    That includes what dead processes left in work/: the last calls activate the storage.
    """
    cluster = storage_service
    yield cluster
    storage.free_all(cluster.a)
    for node in cluster.nodes:
        assert storage.listing(node) == {}
        assert storage.leftovers(node) == []


@pytest.fixture(scope="session")
def small() -> Iterator[Cluster]:
    """Another cluster with the service running, whose mirror is read from end to end in a second or two; the nodes reach each other by ssh.

    At the end all volumes are freed through the plugin, and nothing may be left.
    """
    with Cluster(memory=_SMALL_MEMORY, disk_size=_SMALL_DISK) as formed:
        storage.install(formed.nodes)
        on_each(formed.nodes, splitting.prepare)
        yield formed
        storage.free_all(formed.a)
        assert [storage.leftovers(node) for node in formed.nodes] == [[], []]


@pytest.fixture(scope="module")
def emptied(small: Cluster) -> Cluster:
    """The small cluster, with all of its room for the tests of a module."""
    storage.free_all(small.a)
    return small


@pytest.fixture
def pair(emptied: Cluster) -> Iterator[Cluster]:
    """The small cluster, whole; so it is left, and no process of a comparison with it."""
    yield emptied
    on_each(emptied.nodes, verifying.as_found)


@pytest.fixture
def vmid() -> int:
    """A guest number that no other test uses, nor the one after it."""
    return next(_vmids)


@pytest.hookimpl(hookwrapper=True)  # type: ignore[untyped-decorator]
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Keep consoles and states in artifacts/ when a test on a cluster fails."""
    outcome = yield
    report = outcome.get_result()
    arguments = getattr(item, "funcargs", {})
    formed = next((value for value in arguments.values() if isinstance(value, Cluster)), None)
    if report.failed and formed is not None:
        folder = evidence.keep(formed, item.nodeid)
        report.sections.append(("lab", f"consoles and states of the nodes: {folder}"))
