"""How often a sample meets a difference on the real disks, against the probability that its report states."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from pvedrbdstor.verify.plan import found_surely, sample
from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT, STORAGE
from tests.lab.node import Node
from tests.lab.ops import ops_command
from tests.lab.results import Results
from tests.lab.verifying import BLOCK, MIB, blocks, found, places, planted, size_of

GRANULARITY = 262144
FRACTION = 0.02
SAMPLES = 300
CHANCE = 1e-9
"""With which a right program fails here by bad luck: each count of hits is as unlikely as that at most."""


@pytest.mark.soak
def test_a_sample_meets_differences_as_often_as_it_says(pair: Cluster, results: Results) -> None:
    """As many damaged blocks as the report names are met with at least the 95 % that it states; one block with the sample's fraction."""
    a, b = pair.nodes
    file = f"{MOUNT_POINT}/reserved"
    a.run(f"fallocate -l {160 * MIB} {file}")
    try:
        own = Counter(block * BLOCK // GRANULARITY for block in places(a, file))
        hosts = [number for number, count in sorted(own.items()) if count == GRANULARITY // BLOCK]
        stated = found(a, "--fraction", str(FRACTION), "--granularity", "256k")["sample"]
        assert stated["confidence"] == 0.95
        picked = sample(size_of(a), GRANULARITY, FRACTION, 0)
        assert stated["blocks"] == found_surely(picked)
        for amount in (stated["blocks"], stated["blocks"] // 3, 1):
            damaged = random.Random(amount).sample(hosts, amount)
            expected = chance_of_a_hit(damaged, picked.blocks, picked.count)
            with planted(b, one_block_of_each(damaged, amount)):
                hits = sum(samples(a, seed=amount * SAMPLES))
            if amount == stated["blocks"]:
                assert expected >= 0.95
            assert luck(hits, SAMPLES, expected) > CHANCE, (amount, hits, expected)
            results.row(
                "How often a sample of 2 % met damage, in blocks of 256 KiB spread at random",
                damaged_blocks=str(amount),
                samples=str(SAMPLES),
                hits=str(hits),
                rate=f"{hits / SAMPLES:.3f}",
                probability=f"{expected:.3f}",
            )
        everything = found(a, "--fraction", "100%")
        assert everything["verdict"] == "clean" and everything["sample"]["blocks"] == 1
        with planted(b, one_block_of_each(damaged, 0)):
            assert blocks(found(a, "--fraction", "100%")["diverged"]) == set(one_block_of_each(damaged, 0))
    finally:
        a.run(f"rm {file}")


def samples(node: Node, seed: int) -> list[bool]:
    command = ops_command(*(STORAGE, FRACTION, GRANULARITY, SAMPLES, seed), program="tests.lab.guest.samples")
    answer = json.loads(node.run(command, 900).splitlines()[-1])
    assert len(answer) == SAMPLES
    return [bool(hit) for hit in answer]


def one_block_of_each(damaged: Sequence[int], seed: int) -> list[int]:
    """4 KiB somewhere in each of these blocks of GRANULARITY."""
    dice = random.Random(seed)
    each = GRANULARITY // BLOCK
    return [block * each + dice.randrange(each) for block in damaged]


def chance_of_a_hit(damaged: Sequence[int], total: int, parts: int) -> float:
    """Of a sample with one block at random out of each of ``parts`` equal parts of ``total`` blocks."""
    edges = [part * total // parts for part in range(parts + 1)]
    in_part = Counter(next(part for part in range(parts) if block < edges[part + 1]) for block in damaged)
    return 1 - math.prod(1 - count / (edges[part + 1] - edges[part]) for part, count in in_part.items())


def luck(hits: int, tries: int, chance: float) -> float:
    """The probability of so many hits or fewer, or of so many or more, whichever is smaller: the binomial distribution's tail."""

    def exactly(count: int) -> float:
        return math.comb(tries, count) * chance**count * (1 - chance) ** (tries - count)

    return min(sum(map(exactly, range(hits + 1))), sum(map(exactly, range(hits, tries + 1))))
