"""The settings in `drbdsetup show` and `drbdadm dump`, of real clusters and of arbitrary text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.drbd import blocks
from pvedrbdstor.drbd.config import (
    FENCED,
    ResourceConfig,
    fence_peer_handler,
    hosts,
    hosts_with_disk,
    parse_show,
    resources,
)
from tests.drbd.support import FILES, output_of


def show_of(name: str) -> str:
    text = output_of(name, "drbdsetup show")
    assert text is not None
    return text


def config_of(name: str) -> ResourceConfig:
    return parse_show(show_of(name))["r0"]


@pytest.mark.parametrize("name", FILES)
def test_every_capture_is_understood(name: str) -> None:
    text = show_of(name)
    found = parse_show(text)
    assert set(found) == ({"r0"} if "resource" in text else set())
    for config in found.values():
        assert len(config.nets) == text.count("net {")
        assert config.allow_two_primaries is (True if config.nets else None)
        assert (config.fencing(0) == FENCED) == (FENCED in text)
        for net in config.nets:
            assert (net.protocol, net.ping_interval, net.ping_timeout, net.connect_interval) == ("C", 5, 1, 3)
            assert [option for option, _ in net.undisconnected][:2] == ["after-sb-0pri", "after-sb-1pri"]


def test_fencing_of_8_4_belongs_to_the_disk() -> None:
    assert config_of("8.4/T3b-after-fence-a-resumed.a.txt").disk_fencing == {0: FENCED}
    assert config_of("8.4/04-mounted-both.a.txt").fencing(0) == "dont-care"


def test_a_diskless_8_4_has_no_fencing_in_force() -> None:
    config = config_of("8.4/F4-b-diskless-mounted.b.txt")
    assert config.disk_fencing == {}
    assert config.fencing(0) is None


def test_8_4_forgets_the_connection_in_standalone() -> None:
    config = config_of("8.4/F2-splitbrain-standalone.a.txt")
    assert (config.nets, config.allow_two_primaries, config.detection) == ((), None, None)


def test_fencing_and_quorum_of_9() -> None:
    config = config_of("9/21-quorum+fencing-suspended.a.txt")
    assert (config.fencing(0), config.quorum, config.on_no_quorum) == (FENCED, "majority", "suspend-io")
    assert config_of("9/20-quorum-lost-io-error.a.txt").on_no_quorum == "io-error"
    assert config_of("9/04-mounted-both.a.txt").quorum == "off"


def test_each_peer_of_9_has_its_connection() -> None:
    nets = config_of("9/25-tiebreaker-b-isolated.b.txt").nets
    assert [(net.peer_node_id, net.peer) for net in nets] == [(0, "nodea"), (2, "nodec")]


def test_the_time_to_notice_a_dead_link() -> None:
    assert config_of("8.4/04-mounted-both.a.txt").detection == 11


SHOW = 'resource "r0" { _this_host { node-id 0; } connection { _peer_node_id 1; net { %s } } }'


def test_what_is_left_out_is_drbds_default() -> None:
    (net,) = parse_show(SHOW % "")["r0"].nets
    assert (net.protocol, net.allow_two_primaries, net.fencing, net.rr_conflict) == (
        "C",
        False,
        "dont-care",
        "disconnect",
    )
    assert (net.ping_interval, net.ping_timeout, net.connect_interval, net.timeout) == (10, 0.5, 10, 6)
    assert net.undisconnected == ()


@pytest.mark.parametrize(
    ("option", "found"),
    [
        ("after-sb-1pri discard-secondary;", ("after-sb-1pri", "discard-secondary")),
        ("after-sb-2pri call-pri-lost-after-sb;", ("after-sb-2pri", "call-pri-lost-after-sb")),
        ("rr-conflict violently;", ("rr-conflict", "violently")),
        ("rr-conflict retry-connect;", ("rr-conflict", "retry-connect")),
        ("after-sb-0pri disconnect;", None),
    ],
)
def test_policies_other_than_disconnect_are_seen(option: str, found: tuple[str, str] | None) -> None:
    (net,) = parse_show(SHOW % option)["r0"].nets
    assert net.undisconnected == ((found,) if found else ())


def test_the_weakest_of_several_connections_counts() -> None:
    text = (
        "resource r { _this_host { node-id 0; } connection { _peer_node_id 1; net { fencing resource-and-stonith; } }"
        " connection { _peer_node_id 2; net { fencing resource-only; } } }"
    )
    assert parse_show(text)["r"].fencing(0) == "resource-only"


def test_an_unknown_policy_counts_as_none() -> None:
    assert parse_show(SHOW % "fencing magic;")["r0"].fencing(0) == "magic"
    text = SHOW.replace("net {", "net { fencing resource-only; } } connection { net {") % "fencing magic;"
    assert parse_show(text)["r0"].fencing(0) == "magic"


def test_a_number_that_is_none_is_not_told() -> None:
    (net,) = parse_show(SHOW % "ping-int soon;")["r0"].nets
    assert net.ping_interval is None
    assert net.detection is None


def test_the_handler_of_a_resource_or_of_all() -> None:
    name = "8.4/T3b-after-fence-a-resumed.a.txt"
    dump = output_of(name, "drbdadm dump")
    assert dump is not None
    assert fence_peer_handler(dump, "r0") == "/run/share/fence.sh"
    assert fence_peer_handler(dump, "r1") is None
    common = 'common { handlers { fence-peer "/usr/lib/x y \\"z\\""; } }\nresource r1 { handlers { fence-peer own; } }'
    assert fence_peer_handler(common, "r0") == '/usr/lib/x y "z"'
    assert fence_peer_handler(common, "r1") == "own"


def test_no_handler_in_the_unfenced_clusters() -> None:
    dump = output_of("8.4/04-mounted-both.a.txt", "drbdadm dump")
    assert dump is not None
    assert fence_peer_handler(dump, "r0") is None


def test_comments_and_quoted_marks_are_no_structure() -> None:
    top = blocks.parse('a "b { } ; #" { # c { ;\n  d "e;f" g; flag; }\nh i;')
    (block,) = top.blocks
    assert block.words == ("a", "b { } ; #")
    assert block.options == {"d": ("e;f", "g"), "flag": ()}
    assert (block.value("d"), block.value("flag"), block.value("x")) == ("e;f", "", None)
    assert top.options == {"h": ("i",)}


@pytest.mark.parametrize("name", ["8.4/T3b-after-fence-a-resumed.a.txt", "9/25-tiebreaker-b-isolated.b.txt"])
def test_a_resource_that_is_cut_off_is_left_out(name: str) -> None:
    """Otherwise a missing 'fencing' would be told as a default."""
    text = show_of(name).rstrip()
    assert all(parse_show(text[:end]) == {} for end in range(len(text)))


WORDS = st.sampled_from(
    [
        "resource",
        "r0",
        "{",
        "}",
        ";",
        "net",
        "connection",
        "_this_host",
        "volume",
        "0",
        "disk",
        '"',
        "#",
        "\n",
        "fencing",
    ]
)


@given(st.lists(WORDS | st.text(max_size=6), max_size=30).map(" ".join))
def test_arbitrary_text_gives_values_or_nothing(text: str) -> None:
    for config in parse_show(text).values():
        config.fencing(0)
        assert config.detection is None or config.detection >= 0
    fence_peer_handler(text, "r0")


def test_deep_nesting_is_no_recursion() -> None:
    assert parse_show("a {" * 100_000) == {}


def test_what_a_comparison_needs_to_know() -> None:
    found = config_of("8.4/04-mounted-both.a.txt")
    assert [(net.verify_alg, net.ko_count) for net in found.nets] == [("crc32c", 7)]
    assert found.read_balancing == {0: "prefer-local"}
    text = """resource r0 {
        _this_host { volume 0 { disk "/dev/sda"; disk { read-balancing round-robin; } } volume 1 { device minor 1; } }
        _remote_host { } net { ko-count 0; }
    }"""
    changed = parse_show(text)["r0"]
    assert changed.read_balancing == {0: "round-robin"}
    assert [(net.verify_alg, net.ko_count) for net in changed.nets] == [(None, 0)]


DISKLESS = output_of("written/diskless-third-node.9.txt", "drbdadm dump") or ""
"""Of drbd-utils 9.22: `disk none` in each place where drbd.conf may have it."""


@pytest.mark.parametrize(
    ("resource", "volume", "third"),
    [
        ("r0", 0, False),
        ("r1", 0, False),
        ("r1", 1, False),
        ("r2", 0, False),
        ("r3", 0, False),
        ("r3", 1, True),
        ("r4", 0, False),
    ],
)
def test_hosts_that_have_a_disk(resource: str, volume: int, third: bool) -> None:
    found = [host.partition(".")[0] for host in hosts_with_disk(DISKLESS, resource, volume)]
    assert found == ["nodea", "nodeb", *(["nodec"] if third else [])]
    assert len(hosts(DISKLESS, resource)) == 3


@pytest.mark.parametrize("name", FILES)
def test_all_hosts_of_a_mirror_of_two_have_a_disk(name: str) -> None:
    dump = output_of(name, "drbdadm dump") or ""
    assert hosts_with_disk(dump, "r0", 0) == hosts(dump, "r0")
    assert set(resources(dump)) <= {"r0"}
