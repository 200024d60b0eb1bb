"""Fixtures for the tests of the C extension."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Opener = Callable[[Path], int]


@pytest.fixture
def opened() -> Iterator[Opener]:
    """A function that opens a file for reading and writing, creating it; closed after the test."""
    fds = []

    def open_file(path: Path) -> int:
        fds.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return fds[-1]

    yield open_file
    for fd in fds:
        os.close(fd)
