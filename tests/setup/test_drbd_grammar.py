"""Whatever the nodes, disks and the resource are called: drbdadm of both generations reads from its file what was meant, on both nodes."""

from __future__ import annotations

import ipaddress
import subprocess
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from pvedrbdstor.config import is_taken_otherwise
from pvedrbdstor.drbd import blocks
from pvedrbdstor.drbd.generation import Generation
from pvedrbdstor.setup import templates
from pvedrbdstor.setup.templates import Host, Mirror
from tests.examples import examples
from tests.setup.test_templates import PROGRAMS

# Of both grammars (drbd-utils, drbdadm_scanner.fl).
WORDS = [
    "common",
    "global",
    "resource",
    "on",
    "net",
    "disk",
    "handlers",
    "options",
    "startup",
    "device",
    "minor",
    "address",
    "meta-disk",
    "flexible-meta-disk",
    "floating",
    "host",
    "hosts",
    "stacked-on-top-of",
    "include",
    "skip",
    "volume",
    "connection",
    "connection-mesh",
    "proxy",
    "path",
    "via",
    "yes",
    "no",
    "ipv4",
    "ipv6",
    "sdp",
    "ssocks",
    "syncer",
    "protocol",
    "node-id",
    "internal",
    "peer",
    "template-file",
    "inside",
    "outside",
    "require-drbd-module-version-ge",
]
LABELS = st.from_regex(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,20}[A-Za-z0-9])?", fullmatch=True)
HOSTS = st.one_of(LABELS, st.sampled_from(WORDS))
RESOURCES = st.one_of(
    st.from_regex(r"[a-zA-Z0-9][-a-zA-Z0-9_.+]{0,40}", fullmatch=True), st.sampled_from(WORDS)
).filter(lambda name: not is_taken_otherwise(name))
DISKS = st.from_regex(r"/dev/[A-Za-z0-9][A-Za-z0-9._+:@/-]{0,60}", fullmatch=True).filter(lambda name: ".." not in name)
ADDRESSES = st.integers(0x01000001, 0xDFFFFFFE).map(lambda number: str(ipaddress.IPv4Address(number)))


@st.composite
def mirrors(draw: st.DrawFn) -> Mirror:
    names = draw(st.lists(HOSTS, min_size=2, max_size=2, unique_by=str.lower))
    addresses = draw(st.lists(ADDRESSES, min_size=2, max_size=2, unique=True))
    hosts = tuple(Host(names[at], draw(DISKS), addresses[at], at) for at in (0, 1))
    return Mirror(
        resource=draw(RESOURCES),
        minor=draw(st.integers(0, (1 << 20) - 1)),
        port=draw(st.integers(1, 65535)),
        hosts=hosts,
        generation=draw(st.sampled_from(Generation)),
        fenced=draw(st.booleans()),
        speed=draw(st.one_of(st.none(), st.integers(1, 1_000_000))),
        ping_int=draw(st.integers(1, 120)),
        ping_timeout=draw(st.integers(1, 300)),
        connect_int=draw(st.integers(1, 120)),
    )


def dumped(mirror: Mirror, host: str) -> blocks.Block:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "one.res"
        file.write_text(templates.resource_file(mirror))
        script = 'printf %s "$1" >/proc/sys/kernel/hostname; exec "$2" --config-file="$3" dump "$4"'
        words = (host, PROGRAMS[mirror.generation], str(file), mirror.resource)
        command = ("unshare", "--uts", "sh", "-euc", script, "sh", *words)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{done.stderr}\n{templates.resource_file(mirror)}"
    (found,) = blocks.parse(done.stdout).named("resource")
    return found


def ordinary(generation: Generation, name: str) -> Mirror:
    hosts = (Host(name, "/dev/sdb", "10.10.10.1", 0), Host("pve2", "/dev/sdb", "10.10.10.2", 1))
    return Mirror(name, 0, 7789, hosts, generation, True, 10000, 3, 10, 3)


@given(mirrors())
@example(ordinary(Generation.V8_4, "disk"))
@example(ordinary(Generation.V9, "host"))
@example(ordinary(Generation.V8_4, "1"))
@settings(max_examples=examples(40))
def test_drbdadm_reads_what_was_meant(mirror: Mirror) -> None:
    for host in mirror.hosts:
        found = dumped(mirror, host.name)
        assert found.words[1] == mirror.resource
        hosts = {block.words[1]: block for block in found.named("on")}
        assert set(hosts) == {each.name for each in mirror.hosts}
        for each in mirror.hosts:
            volume = next(hosts[each.name].named("volume"), hosts[each.name])
            assert (volume.value("disk"), volume.value("meta-disk")) == (each.disk, "internal")
            assert str(volume.value("device")).split()[0] == f"/dev/drbd{mirror.minor}"
            assert hosts[each.name].options["address"][-1] == f"{each.address}:{mirror.port}"
        (net,), (disk,) = found.named("net"), found.named("disk")
        assert (net.value("protocol"), net.value("allow-two-primaries")) == ("C", "yes")
        fencing = (disk if mirror.generation is Generation.V8_4 else net).value("fencing")
        assert fencing == ("resource-and-stonith" if mirror.fenced else None)
        assert (disk.value("c-max-rate") is None) is (mirror.speed is None)
