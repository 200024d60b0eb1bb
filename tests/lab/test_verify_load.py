"""`pvedrbdstor verify` under load, 20 times over: see test_verify.py for once."""

from __future__ import annotations

import pytest

from tests.lab.cluster import Cluster
from tests.lab.results import Results
from tests.lab.verifying import soon_given_up, under_load

_ROUNDS = 20


@pytest.mark.soak
def test_writes_from_both_nodes_are_no_difference_20_times(pair: Cluster, vmid: int, results: Results) -> None:
    with soon_given_up(pair):
        under_load(pair, vmid, _ROUNDS, results)
