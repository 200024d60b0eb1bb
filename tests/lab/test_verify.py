"""`pvedrbdstor verify` on the real cluster: planted differences are found and named, and nothing else is."""

from __future__ import annotations

import random

from tests.lab.cluster import Cluster
from tests.lab.formation import MOUNT_POINT, RESOURCE, STORAGE
from tests.lab.results import Results
from tests.lab.storage import call, path
from tests.lab.verifying import (
    BLOCK,
    MIB,
    blocks,
    fill,
    found,
    free_space,
    image_of,
    named,
    placed,
    places,
    planted,
    refused,
    size_of,
    soon_given_up,
    under_load,
    unmarked,
    verify,
)


def test_equal_copies_are_clean_and_what_differs_is_found_exactly_and_named(pair: Cluster, vmid: int) -> None:
    """In an image, in its snapshot alone, and in free space; on either node; written behind DRBD's back."""
    a, b = pair.nodes
    document = found(a, "--mode", "full")
    assert document["verdict"] == "clean", document
    assert document["compared"] == document["size"] == size_of(a)
    dice = random.Random(vmid)
    image = image_of(a, vmid, 8 * MIB)
    volid = f"{STORAGE}:{vmid}/{image.rpartition('/')[2]}"
    call(a, "volume_snapshot", volid, "before")
    fill(a, image, 4)  # from here on the snapshot has 4 MiB alone
    snapshot = path(a, volid, "before")
    in_image, in_snapshot, free = placed(a, image), placed(a, snapshot), free_space(a)
    alone = sorted(set(in_snapshot.values()) - set(in_image.values()))
    assert len(alone) == 4 * MIB // BLOCK
    on_a = dice.sample(list(in_image.values()), 5)
    on_b = [*dice.sample(sorted(set(in_image.values()) - set(on_a)), 30), *dice.sample(alone, 5)]
    in_free = dice.sample(free, 5)
    with planted(a, on_a), planted(b, [*on_b, *in_free]):
        document = found(a, "--mode", "full")
        assert document["verdict"] == "diverged" and document["exit_status"] == 1
        assert blocks(document["diverged"]) == {*on_a, *on_b, *in_free}
        assert not document["unsettled"]
        told = {
            block: {(place.path, place.offset) for place in in_it if place.path}
            for block, in_it in named(document).items()
        }
        for block in {*on_a, *on_b}:
            assert told[block] == {
                (file.removeprefix(f"{MOUNT_POINT}/"), at * BLOCK)
                for file, where in ((image, in_image), (snapshot, in_snapshot))
                for at, number in where.items()
                if number == block
            }
        assert all({place.harm for place in named(document)[block]} == {"free"} for block in in_free)
        allocated = found(b, "--mode", "allocated", "--granularity", "4k")
        assert blocks(allocated["diverged"]) == {*on_a, *on_b}, "and nothing of what is free"
        assert 12 * MIB < allocated["compared"] < size_of(a)
    assert found(b, "--mode", "full")["verdict"] == "clean"


def test_a_sample_touches_every_image(pair: Cluster, vmid: int) -> None:
    """One whose blocks all differ is found, however small the sample; in words for people."""
    image, other = (image_of(pair.a, vmid, 4 * MIB) for _ in range(2))
    with planted(pair.b, places(pair.a, image)):
        told = verify(pair.a, "--fraction", "0.01%")
    assert told.rc == 1 and "DIFFER between nodea and nodeb" in told.out, told.out
    assert image.rpartition("/")[2] in told.out and other.rpartition("/")[2] not in told.out


def test_writes_from_both_nodes_are_no_difference(pair: Cluster, vmid: int, results: Results) -> None:
    """And what differs besides is found all the same."""
    with soon_given_up(pair):
        under_load(pair, vmid, 1, results)


def test_drbds_own_verify_finds_the_same(pair: Cluster, vmid: int) -> None:
    a, b = pair.nodes
    different = random.Random(vmid).sample(places(a, image_of(a, vmid, 8 * MIB)), 20)
    with planted(b, different):
        document = found(a, "--mode", "kernel")
        assert document["verdict"] == "diverged" and blocks(document["diverged"]) == set(different), document
        assert any("DRBD's verify has found 80 KiB different" in remark for remark in document["remarks"])
    unmarked(pair, b)


def test_without_an_algorithm_drbds_own_verify_is_refused(pair: Cluster) -> None:
    a = pair.a
    quiet = a.run(
        f"sed -i.kept s/verify-alg.crc32c.// /etc/drbd.d/{RESOURCE}.res && drbdadm adjust {RESOURCE} && echo done"
    )
    assert "done" in quiet
    try:
        refused([a], "no `verify-alg` is set", "--mode", "kernel")
    finally:
        a.run(f"mv /etc/drbd.d/{RESOURCE}.res.kept /etc/drbd.d/{RESOURCE}.res && drbdadm adjust {RESOURCE}")
