"""Fixtures of the lab: one formed cluster for all tests of the session, and evidence of every failure on it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests.lab import evidence
from tests.lab.cluster import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes with the file system mounted. Tests leave both nodes running and mounted."""
    with Cluster() as formed:
        yield formed


@pytest.hookimpl(hookwrapper=True)  # type: ignore[untyped-decorator]
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Keep consoles and states in artifacts/ when a test on a cluster fails."""
    outcome = yield
    report = outcome.get_result()
    formed = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(formed, Cluster):
        folder = evidence.keep(formed, item.nodeid)
        report.sections.append(("lab", f"consoles and states of the nodes: {folder}"))
