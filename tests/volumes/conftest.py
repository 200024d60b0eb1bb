"""A fresh storage for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.volumes.support import Area


@pytest.fixture
def area(reflink_dir: Path) -> Area:
    """An empty storage on a file system with reflink."""
    return Area(reflink_dir)
