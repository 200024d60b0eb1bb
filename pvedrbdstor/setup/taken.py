"""Names, minors and ports that DRBD's resources have taken on the nodes. No I/O here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pvedrbdstor.drbd import blocks
from pvedrbdstor.setup.facts import Facts, Resource
from pvedrbdstor.setup.paths import DRBD_CONF, RESOURCES

_INCLUDES = re.compile(r'^[ \t]*include\s+"?(?:/etc/)?drbd\.d/\*\.res"?\s*;', re.M)
_RESOURCE = re.compile(r'^[ \t]*resource[ \t]+"?([^\s"{]+)', re.M)


@dataclass(frozen=True, slots=True)
class Used:
    """What the nodes' DRBD resources have taken."""

    resources: frozenset[str]
    minors: frozenset[int]
    ports: frozenset[int]


def includes_resources(drbd_conf: str) -> bool:
    return _INCLUDES.search(drbd_conf) is not None


def used_by_drbd(nodes: Mapping[str, Facts]) -> Used:
    """From the files as they are written, as drbdadm reads only one grammar; from all that it reads; and from what the kernel runs.

    A resource has its name in its file, and the file's own name is where another one would be written.
    """
    files = [(path, text) for facts in nodes.values() for path, text in facts.files.items()]
    inside = [path.removeprefix(f"{RESOURCES}/") for path, _ in files if path.startswith(f"{RESOURCES}/")]
    texts = [text for path, text in files if path.startswith(f"{RESOURCES}/") or path == DRBD_CONF]
    told = [resource for facts in nodes.values() for resource in facts.resources]
    return Used(
        frozenset((*_names(texts), *(name.split(".")[0] for name in inside), *(each.name for each in told))),
        frozenset((*_minors(texts), *(minor for each in told for minor in each.minors))),
        frozenset((*_ports(texts), *(port for each in told for port in each.ports))),
    )


def unwritten(told: Iterable[str], files: Sequence[str]) -> Iterator[Resource]:
    """Those resources of `drbdadm dump` and `drbdsetup show` that are not in the files just as they are."""
    names, minors, ports = _names(files), _minors(files), _ports(files)
    for text in told:
        starts = [*_RESOURCE.finditer(text)]
        ends = [*(start.start() for start in starts), len(text)][1:]
        for start, end in zip(starts, ends, strict=True):
            body = [text[start.start() : end]]
            found = Resource(start[1], tuple(sorted(_minors(body))), tuple(sorted(_ports(body))))
            if not (found.name in names and minors.issuperset(found.minors) and ports.issuperset(found.ports)):
                yield found


def _names(texts: Iterable[str]) -> frozenset[str]:
    found = (block.words for text in texts for block in blocks.parse(text).named("resource"))
    return frozenset(words[1] for words in found if len(words) >= 2)


def _minors(texts: Iterable[str]) -> frozenset[int]:
    found = (re.findall(r"(?:/dev/drbd|\bminor\s+)([0-9]{1,7})\b", text) for text in texts)
    return frozenset(int(number) for numbers in found for number in numbers)


def _ports(texts: Iterable[str]) -> frozenset[int]:
    found = (re.findall(r":([0-9]{2,5})\s*[;}]", text) for text in texts)
    return frozenset(int(number) for numbers in found for number in numbers)
