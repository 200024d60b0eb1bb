"""Proxmox's firewall by its files: whether a node lets a TCP connection in or out. Pure; read as PVE::Firewall does (parse_fw_rule(),
generic_fw_config_parser(), enable_host_firewall()), of which PVE 9's proxmox-firewall reads the same files."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

_RULE = re.compile(r"(\|?)(\S+)\s+(\S+)\s*(.*)")
_PARAMETER = re.compile(r"--?(\S+)\s+(\S+)\s*")
_OPTION = re.compile(r"(enable):\s*([0-9]{1,18})|(policy_in|policy_out):\s*(ACCEPT|DROP|REJECT)", re.I)
_TITLE = re.compile(r"\[(options|aliases|rules|group\s+\S+|ipset\s+\S+)\]", re.I)
_MACRO = re.compile(r"\S+\((ACCEPT|DROP|REJECT)\)")
_NO_MACRO_PORTS = range(7301, 8000)
"""No macro of PVE::Firewall names a port of these; Ceph's has 6800:7300."""
_RANGE = re.compile(r"([0-9]{1,5})(?::([0-9]{1,5}))?")
_DEPTH_MAX = 4


class Way(Enum):
    IN = "in"
    OUT = "out"


class Answer(Enum):
    """UNKNOWN: a rule that would change it cannot be resolved here."""

    OPEN = "open"
    CLOSED = "closed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Rule:
    """kind: in, out, forward or group. parameters: by their long names without dashes."""

    kind: str
    action: str
    parameters: Mapping[str, str]


@dataclass
class Rules:
    """One file. sections: `rules`, `aliases`, `group NAME`, `ipset NAME`, in small letters but for the names: their lines."""

    options: dict[str, str] = field(default_factory=dict)
    sections: dict[str, list[str]] = field(default_factory=dict)


def parse(text: str) -> Rules:
    """What is none of its lines is passed over; of an option the last one counts."""
    found, section = Rules(), ""
    for line in (each.strip() for each in text.split("\n")):
        if not line or line.startswith("#"):
            continue
        if title := _TITLE.match(line):
            kind, _, name = title[1].partition(" ")
            section = f"{kind.lower()} {name.strip()}".strip()
            found.sections.setdefault(section, [])
        elif section == "options":
            if option := _OPTION.fullmatch(line):
                name, value = (word for word in option.groups() if word is not None)
                found.options[name.lower()] = value.upper()
        elif section:
            found.sections[section].append(line.partition("#")[0].strip())
    return found


def options(text: str) -> dict[str, str]:
    """`enable`, `policy_in`, `policy_out`, as far as they are written, in capitals."""
    return parse(text).options


def is_on(cluster: str, host: str = "") -> bool:
    """Whether a node's firewall is on: off unless cluster.fw says `enable`, and then on unless the node's host.fw says otherwise."""
    return int(options(cluster).get("enable", "0")) > 0 and int(options(host).get("enable", "1")) > 0


def has_rules(text: str) -> bool:
    """Whether a file has a rule, also one that is switched off."""
    return bool(parse(text).sections.get("rules"))


def answer(cluster: str, host: str, way: Way, source: str, dest: str, port: int) -> Answer:
    """Of a node with these files, for a new TCP connection: the host's rules first, then the cluster's, then the policy; the first that
    matches counts. source, dest: IPv4 or IPv6 addresses."""
    if not is_on(cluster, host):
        return Answer.OPEN
    shared = parse(cluster)
    policy = shared.options.get(f"policy_{way.value}", "DROP" if way is Way.IN else "ACCEPT")
    lines = [*parse(host).sections.get("rules", ()), *shared.sections.get("rules", ())]
    reached = _Packet(shared, way, source, dest, port)
    perhaps: set[bool] = set()
    for opens, match in reached.through(lines, 0):
        if match:
            return _judged(opens, perhaps)
        perhaps.add(opens)
    return _judged(policy == "ACCEPT", perhaps)


def _judged(opens: bool, perhaps: set[bool]) -> Answer:
    if perhaps - {opens}:
        return Answer.UNKNOWN
    return Answer.OPEN if opens else Answer.CLOSED


@dataclass
class _Packet:
    shared: Rules
    way: Way
    source: str
    dest: str
    port: int

    def through(self, lines: Iterable[str], depth: int) -> Iterable[tuple[bool, bool]]:
        """(it lets through, it is sure that it matches) of each rule that matches, or may."""
        for line in lines:
            rule = _rule(line)
            if rule is None:
                continue
            if rule.kind == "group" and depth < _DEPTH_MAX:
                sure = "i" not in rule.parameters
                inner = self.shared.sections.get(f"group {rule.action}", ())
                yield from ((opens, match and sure) for opens, match in self.through(inner, depth + 1))
            elif rule.kind == self.way.value:
                match = self._matches(rule)
                if match is not False:
                    yield _MACRO.sub(r"\1", rule.action).upper() == "ACCEPT", bool(match)

    def _matches(self, rule: Rule) -> bool | None:
        """None: cannot be told."""
        words = rule.parameters
        macro = None if self.port not in _NO_MACRO_PORTS else False
        each = [
            macro if _MACRO.fullmatch(rule.action) else True,
            None if "i" in words or "iface" in words or "sport" in words else True,
            words.get("p", words.get("proto", "tcp")).lower() in ("tcp", "6"),
            _is_port(words.get("dport"), self.port),
            self._is_address(words.get("source"), self.source),
            self._is_address(words.get("dest"), self.dest),
        ]
        return False if False in each else None if None in each else True

    def _is_address(self, text: str | None, address: str, depth: int = 0) -> bool | None:
        if text is None:
            return True
        if depth > _DEPTH_MAX:
            return None
        if text.startswith("+"):
            return self._in_set(text[1:].removeprefix("dc/"), address, depth)
        found = [self._is_one(part, address, depth) for part in text.split(",") if part]
        return True if True in found else None if None in found else False

    def _is_one(self, text: str, address: str, depth: int) -> bool | None:
        own = ipaddress.ip_address(address)
        first, dash, last = text.partition("-")
        try:
            if dash:
                low, high = ipaddress.ip_address(first), ipaddress.ip_address(last)
                return own.version == low.version == high.version and int(low) <= int(own) <= int(high)
            return own in ipaddress.ip_network(text, strict=False)
        except ValueError:
            alias = self._alias(text.removeprefix("dc/"))
            return None if alias is None else self._is_address(alias, address, depth + 1)

    def _alias(self, name: str) -> str | None:
        for line in self.shared.sections.get("aliases", ()):
            words = line.split()
            if len(words) > 1 and words[0].lower() == name.lower():
                return words[1]
        return None

    def _in_set(self, name: str, address: str, depth: int) -> bool | None:
        """Proxmox puts the cluster's own network into `management` by itself, which is not known here."""
        lines = self.shared.sections.get(f"ipset {name}")
        if lines is None:
            return None
        found = [self._is_address(line, address, depth + 1) for line in lines if not line.startswith("!")]
        if any(line.startswith("!") for line in lines):
            return None
        return True if True in found else None if None in found or name == "management" else False


def _rule(line: str) -> Rule | None:
    """None for one that is switched off, or not understood: Proxmox passes it over, too."""
    found = _RULE.fullmatch(line)
    if found is None or found[1]:
        return None
    rest, parameters = found[4], {}
    while parameter := _PARAMETER.match(rest):
        parameters[parameter[1]] = parameter[2]
        rest = rest[parameter.end() :]
    return None if rest else Rule(found[2].lower(), found[3], parameters)


def _is_port(text: str | None, port: int) -> bool | None:
    """None where a service's name is among them."""
    if text is None:
        return True
    unknown = False
    for part in text.split(","):
        found = _RANGE.fullmatch(part)
        if found is None:
            unknown = True
        elif int(found[1]) <= port <= int(found[2] or found[1]):
            return True
    return None if unknown else False
