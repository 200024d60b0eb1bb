"""The storage on Debian's own kernel with two CPUs a node, in machines that qemu emulates: closer to PVE's than UML is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import demo, storage
from tests.lab.assets import prepare_tcg
from tests.lab.backends import choose
from tests.lab.cluster import Cluster
from tests.lab.formation import STORAGE
from tests.lab.ops import ops
from tests.lab.results import Results
from tests.lab.storage import alloc, call, path
from tests.lab.test_races import race

MIB = 1 << 20
RACE_SECONDS = 60
LEAST_OPERATIONS = 5  # a node: an emulated CPU is ten times slower, and much more so beside other work


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two emulated machines with the file system mounted."""
    with Cluster(choose("tcg")) as formed:
        yield formed


@pytest.fixture(scope="module")
def storage_service(cluster: Cluster) -> Cluster:
    """The cluster with the service running on both nodes."""
    storage.install(cluster.nodes)
    return cluster


def test_snapshot_and_clone_cross_the_nodes_on_the_distributions_kernel(volumes: Cluster, vmid: int) -> None:
    a, b = volumes.nodes
    version = prepare_tcg().modules_dir.name
    for node in volumes.nodes:
        assert node.run("uname -r; nproc").split() == [version, "2"]
    assert call(b, "storage_info", STORAGE).value[STORAGE]["active"] == 1
    volid = alloc(a, vmid, 16 * MIB)
    ops(a, "write_pattern", path(a, volid), "one", 0, MIB)
    written = ops(b, "digest", path(b, volid))
    call(b, "volume_snapshot", volid, "one")
    ops(b, "write_pattern", path(b, volid), "two", 0, MIB)
    clone = call(a, "vdisk_clone", volid, vmid, "one").value
    call(a, "volume_snapshot_rollback", volid, "one")
    assert ops(b, "digest", path(b, volid)) == ops(a, "digest", path(a, clone)) == written


@pytest.mark.soak
@pytest.mark.alone
def test_demo_goes_well_on_the_distributions_kernel(volumes: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    story = demo.Story()
    disk = demo.disk_across_nodes(story, volumes)
    demo.snapshot_and_rollback(story, volumes, disk)
    demo.resize(story, volumes, disk)
    demo.free_all(story, volumes, demo.template_and_clone(story, volumes, disk))
    assert "the listing is empty on both nodes" in capsys.readouterr().out


@pytest.mark.soak
@pytest.mark.alone
def test_operations_racing_on_two_cpus_a_node_lose_and_double_nothing(
    volumes: Cluster, vmid: int, results: Results
) -> None:
    on_a, on_b = race(volumes, vmid, RACE_SECONDS, LEAST_OPERATIONS)
    table = f"The same race for {RACE_SECONDS} s on Debian's kernel, emulated, two CPUs a node"
    results.row(table, kernel=prepare_tcg().modules_dir.name, node_a=on_a.total(), node_b=on_b.total())
