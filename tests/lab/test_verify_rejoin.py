"""What was written while the nodes were apart is noted by DRBD's handlers, and compared after the rejoin: that, and nothing else."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import formation, splitting
from tests.lab import storage as lab_storage
from tests.lab.assets import REPOSITORY
from tests.lab.cluster import Cluster
from tests.lab.formation import NOTE, RESOURCE, STORAGE, on_each
from tests.lab.node import Node
from tests.lab.results import Results
from tests.lab.verifying import BLOCK, blocks, fill, found, image_of, places, planted, size_of, verify

_NOTES = f"/var/lib/pvedrbdstor/verify/rejoin/{RESOURCE}.0.json"
_RECORDS = "/var/lib/pvedrbdstor/verify/last"
_STARTED = "/run/units"
_SYSTEMCTL = f"""#!/bin/sh
# In systemd's place, which no node runs: what the unit's ExecStart is.
echo "$*" >>{_STARTED}
unit=${{3#pvedrbdstor-rejoin@}}
pvedrbdstor verify "${{unit%.service}}" --mode rejoin --wait </dev/null >/run/rejoin.log 2>&1 &
"""


def note(node: Node) -> dict[str, Any]:
    document = json.loads(node.run(f"cat {_NOTES}"))
    assert isinstance(document, dict)
    return document


def noted(node: Node) -> set[int]:
    return {
        block for start, length in note(node)["ranges"] for block in range(start // BLOCK, (start + length) // BLOCK)
    }


def install(node: Node) -> None:
    """The handler as the package has it, and something that is started in systemd's place."""
    (node.share / "systemctl").write_text(_SYSTEMCTL)
    node.run(
        f"""set -e
for side in source target; do install -D -m 0755 {REPOSITORY}/handler/before-resync {NOTE}-$side; done
echo {REPOSITORY} >/usr/lib/python3/dist-packages/lab.pth
[ -e /run/systemctl ] || cp -a /usr/bin/systemctl /run/systemctl
install -m 0755 /run/lab/systemctl /usr/bin/systemctl
rm -rf {_NOTES} {_NOTES}.begun {_RECORDS} {_STARTED}"""
    )


def uninstall(node: Node) -> None:
    node.run(
        f"rm -f {NOTE}-source {NOTE}-target /usr/lib/python3/dist-packages/lab.pth; cp -a /run/systemctl /usr/bin/"
    )


@pytest.fixture
def noting(pair: Cluster) -> Iterator[Cluster]:
    on_each(pair.nodes, install)
    yield pair
    on_each(pair.nodes, uninstall)


def apart(pair: Cluster) -> None:
    pair.b.run(f"pvedrbdstor mirror down {STORAGE} --stop", 60)


def together(pair: Cluster) -> None:
    pair.b.run(f"pvedrbdstor mirror up {STORAGE}", 120)


def compared_by_itself(node: Node) -> None:
    node.run(
        f"until grep -q '\"checked\": [0-9]' {_NOTES}; do sleep 0.2; done; until [ -s {_RECORDS}/rejoin/{STORAGE}.json ]; do sleep 0.1; done",
        90,
    )


def status(node: Node) -> str:
    return node.sh(f"pvedrbdstor mirror status {STORAGE}", 60).out


def test_a_rejoin_is_compared_by_itself_and_only_what_was_written(noting: Cluster, vmid: int) -> None:
    a, b = noting.nodes
    image = image_of(a, vmid)
    assert found(a, "--fraction", "0.1%")["verdict"] == "clean"
    apart(noting)
    fill(a, image, 4)
    written = places(a, image)[:1024]
    together(noting)
    compared_by_itself(a)
    told = status(a)
    assert re.search(r"last rejoin: clean, rejoin, \w+", told), told
    assert "last verify: clean, sample" in told, "a check of a part hides none of more"
    assert a.run(f"cat {_STARTED}").split() == ["start", "--no-block", f"pvedrbdstor-rejoin@{STORAGE}.service"]
    assert b.sh(f"cat {_STARTED}").rc != 0, "one of the nodes leads"
    assert "compared by the other node" in status(b)
    listed = noted(a) | noted(b)
    assert set(written) <= noted(a) and len(listed) * BLOCK < size_of(a)
    outside = [block for block in range(64, size_of(a) // BLOCK) if block not in listed]
    dice = random.Random(vmid)
    on_b, on_a, elsewhere = dice.sample(written, 3), dice.sample(written, 1), dice.sample(outside, 5)
    with planted(b, [*on_b, *elsewhere]), planted(a, on_a):
        document = found(a, "--mode", "rejoin")
        assert document["verdict"] == "diverged" and blocks(document["diverged"]) == {*on_b, *on_a}, document
        assert document["compared"] == document["rejoin"]["bytes"] == len(listed) * BLOCK
        assert document["began"] - 300 < document["rejoin"]["parted"] < document["rejoin"]["met"] < document["began"]
        led_by_b = found(b, "--mode", "rejoin")
        assert blocks(led_by_b["diverged"]) == {*on_b, *on_a}, "the other node has the list as well"
    assert "last verify: diverged, rejoin" in status(a), "a difference is told wherever one looks"


@pytest.mark.soak
def test_a_rejoin_that_was_not_noted_is_not_called_clean(noting: Cluster, vmid: int) -> None:
    a, b = noting.nodes
    image = image_of(a, vmid)
    assert "last rejoin" not in status(a)
    refused = verify(a, "--mode", "rejoin")
    assert refused.rc == 2 and "what was written while the nodes were apart is not known" in refused.out, refused.out
    apart(noting)
    fill(a, image, 1)
    together(noting)
    compared_by_itself(a)
    a.run(f"rm {NOTE}-source")  # nothing may depend on it
    apart(noting)
    fill(a, image, 1)
    together(noting)
    refused = verify(a, "--mode", "rejoin")
    assert refused.rc == 2 and "nodea has noted is of another resync" in refused.out, refused.out
    assert "last rejoin: not compared, as what was written before it was not noted" in status(a)
    b.run(f"printf x >{_NOTES}")
    assert "last rejoin: not known" in status(b)


@pytest.mark.soak
def test_a_failing_handler_breaks_no_resync_and_says_why(noting: Cluster, vmid: int) -> None:
    """One that hangs is ended, and what it could not read is told."""
    a, _ = noting.nodes
    image = image_of(a, vmid)
    a.run("mv /usr/sbin/drbdadm /usr/sbin/drbdadm.kept; ln -s drbdadm.kept /usr/sbin/drbdadm")
    apart(noting)
    fill(a, image, 1)
    a.run(
        "rm /usr/sbin/drbdadm; printf '#!/bin/sh\\ncase $1 in sh-md-*) sleep 100;; esac; exec /usr/sbin/drbdadm.kept \"$@\"\\n' "
        ">/usr/sbin/drbdadm; chmod 755 /usr/sbin/drbdadm"
    )
    try:
        together(noting)
    finally:
        a.run("mv /usr/sbin/drbdadm.kept /usr/sbin/drbdadm")
    assert note(a)["ranges"] == [] and "did not" in note(a)["short"], note(a)
    refused = verify(a, "--mode", "rejoin")
    assert refused.rc == 2 and "could not read DRBD's bitmap" in refused.out, refused.out
    assert "was not noted (" in status(a)


@pytest.mark.soak
def test_a_node_that_was_killed_is_compared_when_it_is_back_10_times(vmid: int, results: Results) -> None:
    killed_and_back(vmid, 10, results)


def killed_and_back(vmid: int, rounds: int, results: Results) -> None:
    """What both had written: the survivor while it was alone, and the dead one last (its activity log)."""
    with Cluster(memory=320) as cluster:
        a, b = cluster.nodes
        lab_storage.install(cluster.nodes)
        on_each(cluster.nodes, splitting.prepare)
        on_each(cluster.nodes, install)
        image = image_of(a, vmid)
        dice = random.Random(7)
        for number in range(rounds):
            b.run(f"dd if=/dev/urandom of={image} bs=4k count=64 seek=2048 oflag=direct conv=notrunc status=none")
            b.kill()
            a.run("until grep -q cs:WFConnection /proc/drbd; do sleep 0.1; done", 60)
            fill(a, image, dice.randint(1, 4))
            b.start()
            b.wait_ready()
            install(b)
            a.run(f"rm -rf {_RECORDS}")
            formation.rejoin(b, cluster.nodes, cluster.fencing)
            lab_storage.install([b])
            splitting.prepare(b)
            compared_by_itself(a)
            assert "last rejoin: clean" in status(a)
            assert set(places(a, image)[2048:2112]) <= noted(b), "what it may have written last"
            written = dice.sample(places(a, image)[:256], 3)
            with planted(b, written):
                document = found(cluster.nodes[number % 2], "--mode", "rejoin")
                assert blocks(document["diverged"]) == set(written)
            results.row(
                "What was written before a killed node came back, compared",
                round=str(number + 1),
                noted=f"{document['compared'] >> 20} MiB",
                of=f"{document['size'] >> 20} MiB",
                seconds=f"{document['seconds']:.1f}",
            )
