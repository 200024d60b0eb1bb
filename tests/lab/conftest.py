"""Fixtures of the lab: one formed cluster for all tests of the session, and evidence of every failure on it."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests.lab import evidence, storage
from tests.lab.cluster import Cluster
from tests.lab.guests.machine import NODE_MEMORY
from tests.lab.results import Results

_vmids = itertools.count(1000, 2)


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
    formed = arguments.get("cluster") or arguments.get("volumes")
    if report.failed and isinstance(formed, Cluster):
        folder = evidence.keep(formed, item.nodeid)
        report.sections.append(("lab", f"consoles and states of the nodes: {folder}"))
