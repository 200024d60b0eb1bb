"""Differences that came to a node's disk while it was dead: found by `pvedrbdstor verify` one by one, and called what they are."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.lab import splitting, storage
from tests.lab.cluster import Cluster
from tests.lab.formation import RESOURCE, STORAGE
from tests.lab.ground import Ground, survey, written_extents
from tests.lab.node import Node
from tests.lab.results import Results
from tests.lab.verifying import BLOCK, Place, blocks, found, named

_LISTED = 100
_ROUNDS = 20


@pytest.mark.soak
def test_differences_written_while_the_node_was_dead_are_found_exactly_20_times(
    pair: Cluster, vmid: int, results: Results
) -> None:
    """To its disk, by the host: 1 to 200 blocks anywhere in images, snapshots, metadata and free space, and none that DRBD copies anew."""
    a, b = pair.nodes
    ground = survey(a, vmid)
    dice = random.Random(5)
    written: dict[int, bytes] = {}
    for number in range(_ROUNDS):
        a.run("sync")
        b.kill()
        write(b, {block: read(a, block) for block in written})
        chosen = ground.choose(dice, dice.randint(1, 200), written_extents(b.disk))
        written = {block: damaged(read(b, block), dice) for block in chosen}
        write(b, written)
        a.run("until grep -q cs:WFConnection /proc/drbd; do sleep 0.1; done", 60)
        pair.rejoin(b)
        assert [block for block, data in written.items() if read(b, block) != data] == [], "DRBD has copied those anew"
        storage.install([b])
        splitting.prepare(b)
        document = found(pair.nodes[number % 2], "--mode", "full")
        assert blocks(document["diverged"]) == set(chosen)
        told_as_they_are(document, ground, chosen, by_damaged=number % 2 == 1)
        allocated = found(a, "--mode", "allocated", "--granularity", "4k")
        assert blocks(allocated["diverged"]) == {block for block, kind in chosen.items() if kind != "free"}
        told_as_they_are(allocated, ground, blocks(allocated["diverged"]))
        counts = Counter(chosen.values())
        results.row(
            "Differences written while a node was dead",
            round=str(number + 1),
            planted=str(len(chosen)),
            **{f"in_{kind}": str(counts[kind]) for kind in sorted(ground.kinds)},
            found=str(len(blocks(document["diverged"]))),
            seconds=f"{document['seconds']:.0f}",
        )
    mended(b)
    assert found(b, "--mode", "full")["verdict"] == "clean"


def damaged(data: bytes, dice: random.Random) -> bytes:
    """A block with another sector in it."""
    at = dice.randrange(BLOCK // 512) * 512
    return data[:at] + dice.randbytes(512) + data[at + 512 :]


def write(node: Node, contents: Mapping[int, bytes]) -> None:
    """To blocks of the node's disk, by the host."""
    with node.disk.open("r+b") as disk:
        for block, data in contents.items():
            disk.seek(block * BLOCK)
            disk.write(data)


def read(node: Node, block: int) -> bytes:
    with node.disk.open("rb") as disk:
        disk.seek(block * BLOCK)
        return disk.read(BLOCK)


def told_as_they_are(
    document: Mapping[str, Any], ground: Ground, different: Iterable[int], *, by_damaged: bool = False
) -> None:
    """Each block in the right file at the right place, in the guest's disk and partition too; metadata as such, free as free.

    by_damaged: the node that tells cannot read an inode or folder that is damaged, and calls it metadata without a name.
    """
    told = {block: {_shown(place, by_damaged) for place in places} for block, places in named(document).items()}
    truth = {block: {_shown(place, by_damaged) for place in ground.says[block]} for block in different}
    for block, places in told.items():
        assert places <= truth.get(block, set()), (block, places, truth.get(block))
    kinds = Counter((place.harm, place.path) for places in truth.values() for place in places)
    sizes: Counter[tuple[str, str | None]] = Counter()
    for entry in document["meaning"]["found"]:
        sizes[entry["harm"], entry["path"]] += entry["bytes"] // BLOCK
    assert sizes == kinds
    if all(entry["count"] <= _LISTED for entry in document["meaning"]["found"]):
        assert told == truth


def _shown(place: Place, by_damaged: bool) -> Place:
    """The region in words counts for metadata alone."""
    return place if place.harm == "metadata" and not by_damaged else replace(place, region=None)


def mended(node: Node) -> None:
    """Its disk is copied anew, all of it, as the report advises."""
    node.run(f"pvedrbdstor mirror down {STORAGE}", 60)
    node.run(
        f"""drbdadm invalidate {RESOURCE} && until grep -q ro:Secondary.*ds:Inconsistent/ /proc/drbd; do sleep 0.05; done
until grep -q ds:UpToDate/UpToDate /proc/drbd; do sleep 0.2; done""",
        120,
    )
    node.run(f"pvedrbdstor mirror up {STORAGE}", 120)
