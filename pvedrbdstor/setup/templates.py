"""The files that a setup writes, whole: DRBD's resource, o2cb's two, LVM's filter, udev's rule, the firewall's rules. No I/O here.

docs/install.md has the same by hand; tests/setup holds both together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pvedrbdstor.drbd.generation import Generation
from pvedrbdstor.fencing import paths
from pvedrbdstor.ocfs2.o2cb import Timeouts
from pvedrbdstor.pve import firewall
from pvedrbdstor.setup.facts import Disk, is_device_name, is_host_name, is_no_serial, is_no_wwn
from pvedrbdstor.setup.values import Malformed

O2NET_PORT = 7777
_TEN_GIGABIT = 9000
"""Mbit/s: what is left of it beside the headers."""
_BEFORE_RESYNC = "/usr/lib/pvedrbdstor/before-resync"
"""Without it, should it be missing one day, DRBD would drop the connection: hence `|| true`."""
_MIB = 1 << 20
_GLOBAL_FILTER = re.compile(
    r"^(?P<before>[ \t]*global_filter[ \t]*=[ \t]*\[)(?P<list>[^\]#\n]*)\](?P<after>[^\n]*)$", re.M
)
_COMMENT = re.compile(r'^((?:[^"#\n]|"[^"\n]*")*)#[^\n]*$', re.M)
_PLAIN = re.compile(r"[\w.:+=@#-]+", re.ASCII)
"""A value within quotes that udev takes as it is: no pattern, no quote."""
_NO_ENTRY = "00000000-"
"""Of a partition whose disk has no number in its table (dos): others have the same."""
_NAME = re.compile(r"[A-Za-z0-9_+.-]+")
_RULES = re.compile(r"^[ \t]*\[RULES\][ \t]*$", re.M | re.I)


@dataclass(frozen=True, slots=True)
class Host:
    """A node in DRBD's and o2cb's words. name: of `uname -n`. disk: below DRBD. number: the node's in both."""

    name: str
    disk: str
    address: str
    number: int


@dataclass(frozen=True, slots=True)
class Mirror:
    """The DRBD resource. speed: of its link in Mbit/s, None where not known. ping_int, connect_int: seconds;
    ping_timeout: tenths of one."""

    resource: str
    minor: int
    port: int
    hosts: tuple[Host, ...]
    generation: Generation
    fenced: bool
    speed: int | None
    ping_int: int
    ping_timeout: int
    connect_int: int


def resource_file(mirror: Mirror) -> str:
    """/etc/drbd.d/RESOURCE.res in the grammar of the kernel's generation: 8.4 has `fencing` in disk { }, 9 in net { }. Names are
    quoted: a node may be called `host` or `disk`, which are words of that grammar.

    Raises Malformed for names that would be read as something else.
    """
    _check(mirror.hosts)
    v9 = mirror.generation is Generation.V9
    fencing = ["fencing resource-and-stonith;"] if mirror.fenced else []
    net = [
        "protocol C; allow-two-primaries yes; verify-alg crc32c;",
        "after-sb-0pri disconnect; after-sb-1pri disconnect; after-sb-2pri disconnect; rr-conflict disconnect;",
        f"ping-int {mirror.ping_int}; ping-timeout {mirror.ping_timeout}; timeout 25; connect-int {mirror.connect_int};",
        *_buffers(mirror.speed),
        *(fencing if v9 else []),
    ]
    disk = [*([] if v9 else fencing), "on-io-error detach;", *_rates(mirror.speed)]
    handlers = [
        *([f'fence-peer "{paths.HANDLER}"; unfence-peer "{paths.UNFENCE}";'] if mirror.fenced else []),
        *(f'before-resync-{side} "{_BEFORE_RESYNC}-{side} || true";' for side in ("source", "target")),
    ]
    options = ["auto-promote no;"] if v9 else []  # and no quorum: docs/fencing.md says why
    lines = [
        "# Written by 'pvedrbdstor setup'; the same on both nodes. See /usr/share/doc/pvedrbdstor/docs/fencing.md.",
        f'resource "{mirror.resource}" {{',
        *_section("options", options),
        *_section("net", net),
        *_section("disk", disk),
        *_section("handlers", handlers),
        *(_host(mirror, host) for host in mirror.hosts),
        "}",
    ]
    return "\n".join(lines) + "\n"


def cluster_conf(cluster: str, hosts: Sequence[Host]) -> str:
    """/etc/ocfs2/cluster.conf. Raises Malformed as resource_file() does."""
    _check(hosts)
    nodes = "".join(
        f"node:\n\tnumber = {host.number}\n\tcluster = {cluster}\n\tip_port = {O2NET_PORT}\n\tip_address = {host.address}\n"
        f"\tname = {host.name}\n"
        for host in hosts
    )
    return f"cluster:\n\tnode_count = {len(hosts)}\n\tname = {cluster}\n{nodes}"


def o2cb_defaults(cluster: str, timeouts: Timeouts) -> str:
    """/etc/default/o2cb: all nodes need the same."""
    return (
        "# Written by 'pvedrbdstor setup'; the same on both nodes.\n"
        f"O2CB_ENABLED=true\nO2CB_BOOTCLUSTER={cluster}\nO2CB_HEARTBEAT_THRESHOLD={timeouts.dead_threshold}\n"
        f"O2CB_IDLE_TIMEOUT_MS={timeouts.idle_timeout_ms}\nO2CB_KEEPALIVE_DELAY_MS={timeouts.keepalive_delay_ms}\n"
        f"O2CB_RECONNECT_DELAY_MS={timeouts.reconnect_delay_ms}\n"
    )


def udev_rule(resource: str, disk: Disk, lower: str, volume: tuple[str, str] | None) -> str | None:
    """A rule that keeps desktops' and systemd's mounters off the lower disk. lower: what DRBD lies on. volume: LVM's group and volume, where
    it is one. None where udev knows nothing that names the device for good."""
    if not is_device_name(lower) or not _NAME.fullmatch(resource):
        raise Malformed(f"{lower!r} or {resource!r} is no name for a rule of udev")
    if volume is not None:
        named = all(_NAME.fullmatch(name) for name in volume)
        match = f'ENV{{DM_VG_NAME}}=="{volume[0]}", ENV{{DM_LV_NAME}}=="{volume[1]}"' if named else None
    else:
        match = _device_match(disk)
    if match is None:
        return None
    title = f"# Written by 'pvedrbdstor setup': {lower} is the lower disk of DRBD resource '{resource}', and nobody else's.\n"
    return f'{title}SUBSYSTEM=="block", {match}, ENV{{UDISKS_IGNORE}}="1", ENV{{SYSTEMD_READY}}="0"\n'


def _device_match(disk: Disk) -> str | None:
    """Of a disk whole, or of a partition alone: what names its disk, udev has for the partition as well."""
    told = {key: value for key, _, value in (word.partition("=") for word in disk.udev) if _PLAIN.fullmatch(value)}
    if disk.kind != "part":
        whole = _disk_match(told)
        return None if whole is None else f'ENV{{DEVTYPE}}=="disk", {whole}'
    entry, number, of_disk = told.get("ID_PART_ENTRY_UUID", ""), told.get("PARTN"), _disk_match(told)
    if entry and not entry.startswith(_NO_ENTRY):
        return f'ENV{{DEVTYPE}}=="partition", ENV{{ID_PART_ENTRY_UUID}}=="{entry}"'
    if number is None or of_disk is None:
        return None
    return f'ENV{{DEVTYPE}}=="partition", {of_disk}, ENV{{PARTN}}=="{number}"'


def _disk_match(told: Mapping[str, str]) -> str | None:
    """Without its extension a world wide name may be that of a whole array of disks."""
    wwn = next((key for key in ("ID_WWN_WITH_EXTENSION", "ID_WWN") if key in told and not is_no_wwn(told[key])), None)
    serial = told.get("ID_SERIAL")
    if wwn is not None:
        return f'ENV{{{wwn}}}=="{told[wwn]}"'
    return None if serial is None or is_no_serial(serial) else f'ENV{{ID_SERIAL}}=="{serial}"'


def lvm_filtered(text: str, minor: int) -> str | None:
    """lvm.conf with this DRBD device, and no other, left out of every scan. The same text where it is already.

    None where it has a global_filter that is not understood.
    """
    pattern = f'"r|^/dev/drbd{minor}$|"'
    active = active_filters(text)
    found = _GLOBAL_FILTER.search(text)
    if not active:
        section = f"devices {{\n\t# added by pvedrbdstor: DRBD's device is no place for LVM\n\tglobal_filter = [ {pattern} ]\n}}\n"
        return f"{text.rstrip()}\n{section}"
    if active == 1 and re.search(rf"\bglobal_filter\s*=\s*\[\s*{re.escape(pattern)}", _COMMENT.sub(r"\1", text)):
        return text
    if active > 1 or found is None:
        return None
    before, there, _ = found["list"].partition(pattern)
    if there and '"a' not in before:
        return text
    # First, as the first pattern that matches counts.
    entries = found["list"].strip().strip(",").strip()
    joined = f"{pattern}, {entries}" if entries else pattern
    return f"{text[: found.start()]}{found['before']}{joined}]{found['after']}{text[found.end() :]}"


def active_filters(text: str) -> int:
    """How many times LVM's configuration names a global_filter outside of comments, in whatever form."""
    return len(re.findall(r"\bglobal_filter\b", _COMMENT.sub(r"\1", text)))


def firewall_directions(text: str) -> tuple[str, ...]:
    """Which ways cluster.fw has to be opened: out is open unless it says otherwise."""
    return ("IN",) if firewall.options(text).get("policy_out", "ACCEPT") == "ACCEPT" else ("IN", "OUT")


def firewall_rule(addresses: Sequence[str], port: int, what: str, direction: str = "IN") -> str:
    """A rule of cluster.fw that lets the two nodes reach each other, and nobody else."""
    both = ",".join(sorted(addresses))
    return f"{direction} ACCEPT -source {both} -dest {both} -p tcp -dport {port} -log nolog # pvedrbdstor: {what}"


def with_rules(text: str, rules: Sequence[str]) -> str:
    """cluster.fw with the rules that it does not have, before all others of [RULES]: the first that matches counts."""
    present = {line.strip() for line in text.splitlines()}
    new = [rule for rule in rules if rule not in present]
    if not new:
        return text
    block = "\n".join(new)
    found = _RULES.search(text)
    if found is None:
        return f"{text.rstrip()}\n\n[RULES]\n\n{block}\n"
    return f"{text[: found.end()]}\n\n{block}{text[found.end() :]}"


def _check(hosts: Sequence[Host]) -> None:
    for host in hosts:
        if not is_host_name(host.name) or not is_device_name(host.disk):
            raise Malformed(f"{host.name!r} or {host.disk!r} is no name for DRBD's and OCFS2's files")


def _section(name: str, lines: Sequence[str]) -> list[str]:
    return [f"    {name} {{", *(f"        {line}" for line in lines), "    }"] if lines else []


def _host(mirror: Mirror, host: Host) -> str:
    v9 = f"node-id {host.number}; " if mirror.generation is Generation.V9 else ""
    return (
        f'    on "{host.name}" {{ {v9}device /dev/drbd{mirror.minor}; disk "{host.disk}"; meta-disk internal; '
        f"address {host.address}:{mirror.port}; }}"
    )


def _buffers(speed: int | None) -> list[str]:
    """DRBD's defaults are for a link of 1 Gbit/s at most: 2048 pages of buffers are 8 MiB. The limit of both is 20000 on 8.4."""
    if speed is None or speed <= 1000:
        return []
    size = 20000 if speed >= _TEN_GIGABIT else 8000
    return [f"max-buffers {size}; max-epoch-size {size};"]


def _rates(speed: int | None) -> list[str]:
    """A resync takes six tenths of the link at most, and a twentieth while guests write: without, it is 100 MiB/s and 250 KiB/s."""
    if speed is None:
        return []
    link = speed * 1_000_000 // 8 // _MIB
    return [f"c-max-rate {min(4000, max(4, link * 6 // 10))}M; c-min-rate {min(4000, max(1, link // 20))}M;"]
