"""Run in a node: many samples of both copies one after the other, each as `pvedrbdstor verify` would take it, over one connection.

python3 -m tests.lab.guest.samples STORAGE FRACTION GRANULARITY COUNT SEED    [whether the sample met a difference, ...]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pvedrbdstor import nodes
from pvedrbdstor.pve.storage_cfg import find_storage
from pvedrbdstor.verify.copy import LocalCopy
from pvedrbdstor.verify.job import other_node
from pvedrbdstor.verify.lead import Findings, Leader
from pvedrbdstor.verify.link import Link
from pvedrbdstor.verify.pace import Pace
from pvedrbdstor.verify.pair import Pair
from pvedrbdstor.verify.plan import Plan, sample
from pvedrbdstor.verify.settle import Settling


def take(storage: str, fraction: float, granularity: int, count: int, first: int) -> list[bool]:
    config = find_storage(Path("/etc/pve/storage.cfg").read_text(), storage).config
    with LocalCopy(config) as here:
        other = other_node(config, here.node)
        with Link(nodes.line(other, ["verify", "--serve", storage]), storage, other) as there:
            there.greet(here.hello)
            with Pair(here, there, here.hello, storage, lambda: False) as pair:
                return [_met(pair, here, fraction, granularity, seed) for seed in range(first, first + count)]


def _met(pair: Pair, here: LocalCopy, fraction: float, granularity: int, seed: int) -> bool:
    size = here.hello.size
    findings = Findings(settling=Settling(here.hello.patience))
    plan = Plan(size, granularity, picked=sample(size, granularity, fraction, seed))
    Leader(pair, plan, findings, Pace()).run()
    assert not findings.settling.unsettled, "nobody writes there"
    return bool(findings.settling.diverged)


def main(storage: str, fraction: str, granularity: str, count: str, seed: str) -> None:
    print(json.dumps(take(storage, float(fraction), int(granularity), int(count), int(seed))))


if __name__ == "__main__":
    main(*sys.argv[1:])
