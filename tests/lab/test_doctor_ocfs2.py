"""What `pvedrbdstor doctor` finds of a file system that somebody made by hand; each cleared by its own remedy, on real nodes."""

from __future__ import annotations

import pytest

from tests.lab import storage
from tests.lab.cluster import Cluster
from tests.lab.doctoring import Finding, findings, prepare
from tests.lab.formation import CLUSTER, RESOURCE, STORAGE, on_each

REPRODUCES = {"ocfs2-slots", "ocfs2-features", "ocfs2-small-clusters", "ocfs2-journal"}
DEVICE = "/dev/drbd0"
DISK = 65 << 30
"""Bytes, nearly all of them never written: journals count as small on a large volume alone."""
LACKS = "noxattr,noindexed-dirs,nometaecc,nobackup-super,nodiscontig-bg"
STACK = f"--cluster-stack=o2cb --cluster-name={CLUSTER}"


def of_file_system(cluster: Cluster) -> list[Finding]:
    return [each for each in findings(cluster.a) if each["id"] in REPRODUCES]


def made_anew(cluster: Cluster, options: str) -> None:
    on_each(cluster.nodes, lambda node: node.run(f"pvedrbdstor mirror down {STORAGE}", 60))
    make = f"mkfs.ocfs2 -F -q -x -L {STORAGE} {options} {STACK} {DEVICE}"
    cluster.a.run(f"drbdadm primary {RESOURCE} && {make} && drbdadm secondary {RESOURCE}", 300)
    cluster.a.run(f"pvedrbdstor mirror up {STORAGE}", 200)


def follow(cluster: Cluster, finding: Finding) -> None:
    """As it is told: down on all nodes, what is to be done on this one, up on all."""
    down, *here, up = finding["commands"]
    assert (down, up) == (f"pvedrbdstor mirror down {STORAGE}", f"pvedrbdstor mirror up {STORAGE}"), finding
    on_each(cluster.nodes, lambda node: node.run(down, 60))
    for command in here:
        cluster.a.run(command, 300)
    on_each(cluster.nodes, lambda node: node.run(up, 200))


@pytest.mark.soak
@pytest.mark.alone
def test_a_file_system_made_with_too_little_is_changed_as_told() -> None:
    with Cluster(memory=400, disk_size=DISK) as cluster:
        storage.install(cluster.nodes)
        prepare(cluster)
        made_anew(cluster, f"-N 1 -b 4K -C 4K -J size=16M --fs-features={LACKS}")
        found = of_file_system(cluster)
        severities = sorted((each["id"], each["severity"]) for each in found)
        assert severities == [
            ("ocfs2-features", "hint"),
            ("ocfs2-features", "warning"),
            ("ocfs2-journal", "hint"),
            ("ocfs2-slots", "error"),
            ("ocfs2-small-clusters", "hint"),
        ], found
        for finding in found:
            if finding["id"] != "ocfs2-small-clusters":
                follow(cluster, finding)
        (small,) = of_file_system(cluster)
        assert small["id"] == "ocfs2-small-clusters" and "Only a new file system" in small["remedy"]
        assert small["commands"][0] == "mkfs.ocfs2 -T vmstore"
        made_anew(cluster, "-N 2 -T vmstore")
        assert "ocfs2-small-clusters" not in {each["id"] for each in of_file_system(cluster)}
