"""A folder that gui-hook takes for a machine, and a power switch."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gui_hook.node import Node, make_node
from tests.gui_hook.power import build_switch


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return make_node(tmp_path)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The power switch, built; a shared library."""
    return build_switch(tmp_path_factory.mktemp("power"))
