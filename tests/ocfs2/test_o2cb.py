"""o2cb's configuration, its values in the kernel, and the plan of writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.ocfs2 import o2cb
from pvedrbdstor.ocfs2.o2cb import KERNEL_DEFAULTS, Cluster, Node, Timeouts, Write
from tests.drbd.support import FILES, configfs_of

CONF = """\
# made by o2cb(8)
node:
\tnumber = 1
\tname = nodeb
\tip_address = 10.77.0.2
\tip_port = 7777
\tcluster = pve

node:
\tnumber = 0
\tname = nodea
\tip_address = 10.77.0.1
\tip_port = 7777
\tcluster = pve

cluster:
\tnode_count = 2
\theartbeat_mode = local
\tname = pve
"""
NODES = (Node(0, "nodea", "10.77.0.1", 7777), Node(1, "nodeb", "10.77.0.2", 7777))


def test_a_cluster_of_two() -> None:
    found = o2cb.parse_cluster_conf(CONF)
    assert found.problems == ()
    assert found.cluster("pve") == Cluster("pve", "local", 2, NODES)
    assert found.cluster("other") is None


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("node_count = 2", "node_count = 3", "node_count = 3 and has 2 nodes"),
        ("number = 1", "number = 0", "more than once"),
        ("number = 1", "number = 255", "lacks a good number"),
        ("ip_port = 7777", "ip_port = 0", "lacks a good number"),
        ("name = nodeb", "name = ../b", "lacks a good number"),
        ("name = pve", "name = p-v-e", "not 1 to 16 letters"),
        ("cluster = pve", "cluster = other", "belongs to no cluster"),
        ("# made", "made", "neither"),
    ],
)
def test_what_is_wrong_in_cluster_conf_is_told(old: str, new: str, problem: str) -> None:
    found = o2cb.parse_cluster_conf(CONF.replace(old, new, 1))
    assert any(problem in told for told in found.problems), found.problems


def test_a_cluster_named_twice_is_not_taken() -> None:
    found = o2cb.parse_cluster_conf(CONF + "\ncluster:\n\tname = pve\n\tnode_count = 2\n")
    assert found.clusters == ()
    assert found.problems


@pytest.mark.parametrize("name", [name for name in FILES if configfs_of(name)])
def test_the_kernels_values_in_every_capture(name: str) -> None:
    found = o2cb.parse_registered(configfs_of(name))
    assert found.timeouts.dead_threshold in (7, 16, 31)
    assert (found.timeouts.keepalive_delay_ms, found.timeouts.reconnect_delay_ms) == (2000, 2000)
    assert found.heartbeat_mode == "local"
    assert [(node.number, node.name, node.port) for node in found.nodes] == [(0, "nodea", 7777), (1, "nodeb", 7777)]
    assert [node.local for node in found.nodes] == [name.endswith(".a.txt"), name.endswith(".b.txt")]
    assert set(o2cb.registered_files(["nodea", "nodeb"])) <= set(configfs_of(name))


def test_values_that_are_missing_or_no_number_are_not_told() -> None:
    found = o2cb.parse_registered({"idle_timeout_ms": "soon\n", "heartbeat/dead_threshold": "31\n", "node/x/num": "0"})
    assert found == o2cb.Registered(Timeouts(dead_threshold=31), None, ())


@pytest.mark.parametrize(("threshold", "seconds"), [(31, 60), (7, 12), (16, 30), (None, None)])
def test_the_dead_time(threshold: int | None, seconds: int | None) -> None:
    assert Timeouts(dead_threshold=threshold).dead_seconds == seconds


def test_the_vendors_defaults() -> None:
    text = "# O2CB_ENABLED=true\nO2CB_ENABLED=false\nO2CB_BOOTCLUSTER='pve'\nO2CB_HEARTBEAT_THRESHOLD=31 # beats\n"
    found = o2cb.parse_defaults(text + 'O2CB_IDLE_TIMEOUT_MS="30000"\nO2CB_KEEPALIVE_DELAY_MS=\n')
    assert found == o2cb.Defaults(False, "pve", Timeouts(31, 30000, None, None))
    assert o2cb.parse_defaults("O2CB_ENABLED=true\nO2CB_BOOTCLUSTER=\n") == o2cb.Defaults(True, None, Timeouts())


def test_only_what_differs_is_written() -> None:
    assert o2cb.timeout_writes("pve", KERNEL_DEFAULTS, KERNEL_DEFAULTS) == ()
    assert o2cb.timeout_writes("pve", Timeouts(dead_threshold=41), KERNEL_DEFAULTS) == (
        Write("/sys/kernel/config/cluster/pve/heartbeat/dead_threshold", "41"),
    )
    assert len(o2cb.timeout_writes("pve", KERNEL_DEFAULTS, Timeouts())) == 4


DELAYS = st.tuples(st.integers(1, 9), st.integers(1, 9)).map(sorted).filter(lambda pair: pair[0] < pair[1])


@given(DELAYS, DELAYS)
def test_the_kernel_would_take_every_write_in_its_order(present: list[int], wanted: list[int]) -> None:
    """o2nm_cluster_{idle_timeout,keepalive_delay}_ms_store() refuse an idle timeout that is not the larger."""
    now = {"keepalive_delay_ms": present[0], "idle_timeout_ms": present[1]}
    writes = o2cb.timeout_writes(
        "pve", Timeouts(31, wanted[1], wanted[0], 2000), Timeouts(31, present[1], present[0], 2000)
    )
    for write in writes:
        now[write.path.rpartition("/")[2]] = int(write.value)
        assert now["keepalive_delay_ms"] < now["idle_timeout_ms"]
    assert now == {"keepalive_delay_ms": wanted[0], "idle_timeout_ms": wanted[1]}


def test_the_command_that_registers() -> None:
    assert o2cb.register_cluster("pve") == ["o2cb", "register-cluster", "pve"]


LINES = st.sampled_from(CONF.splitlines()) | st.text(max_size=12)


@given(st.lists(LINES, max_size=20).map("\n".join))
def test_arbitrary_text_gives_clusters_that_make_sense(text: str) -> None:
    for cluster in o2cb.parse_cluster_conf(text).clusters:
        assert cluster.name.isalnum()
        assert len({node.number for node in cluster.nodes}) == len(cluster.nodes)
        assert all(0 <= node.number < 255 and 0 < node.port < 65536 for node in cluster.nodes)
    o2cb.parse_defaults(text)


@given(st.integers(0, len(CONF) - 2))
def test_a_file_cut_off_is_a_problem_or_lacks_the_cluster(end: int) -> None:
    found = o2cb.parse_cluster_conf(CONF[:end])
    assert found.problems or found.cluster("pve") is None
