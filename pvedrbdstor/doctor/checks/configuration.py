"""DRBD's configuration: the same on both nodes, and the one that runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pvedrbdstor.doctor.facts import Look, Node, plain
from pvedrbdstor.doctor.finding import Entry, Finding, Severity
from pvedrbdstor.drbd import blocks
from pvedrbdstor.drbd.blocks import Block
from pvedrbdstor.nodes import copying

DIFFERS = Entry(
    "drbd-config-differs", (Severity.ERROR,), "DRBD's configuration of the resource is not the same on both nodes"
)
NOT_IN_FORCE = Entry(
    "drbd-config-not-in-force", (Severity.WARNING,), "DRBD runs with other settings than its configuration says"
)
UNDEFINED = Entry(
    "drbd-undefined", (Severity.ERROR,), "a storage's DRBD resource is not in the configuration of a node"
)
ENTRIES = (DIFFERS, NOT_IN_FORCE, UNDEFINED)

_SECRET = "shared-secret"  # noqa: S105 - the name of the option
_SHOWN = 4
_OF_ONE_NODE = ("startup",)
"""Sections that only say how long one node waits at its boot."""
_DISCONNECTS = ("disconnect", "del-peer", "del-path")
"""Those that take the connection down, to make it anew as with other addresses, or as the configuration has no such node."""
_CHANGES = ("net-options", "disk-options", "resource-options", "peer-device-options", *_DISCONNECTS)
"""drbdsetup's commands that change settings. Others of a dry run bring up, connect or attach, which is the verdict's to tell."""


def check(look: Look) -> Iterator[Finding]:
    for resource in dict.fromkeys(storage.resource for storage in look.storages):
        yield from _differences(look, resource)
        for node in look.nodes:
            yield from _in_force(node, resource)


def _differences(look: Look, resource: str) -> Iterator[Finding]:
    written = {node.name: settings(dump, resource) for node in look.nodes if (dump := node.text("dump")) is not None}
    for node, values in written.items():
        if values is None:
            yield UNDEFINED.found(
                f"DRBD's configuration on {node} has no resource '{resource}'",
                "The storage cannot come up there.",
                f"On {node}, copy the file that has it from the other node: {_copy(look, node, resource)}; or correct what is there: 'drbdadm dump "
                f"{resource}' says what is wrong",
                nodes=(node,),
            )
    here = written.get(look.here.name)
    for other in look.others:
        there = written.get(other.name)
        if here is None or there is None:
            continue
        paths = sorted(path for path in here.keys() | there.keys() if here.get(path) != there.get(path))
        if paths:
            told = [_difference(path, here, there, (look.here.name, other.name)) for path in paths[:_SHOWN]]
            more = [f"and {len(paths) - _SHOWN} more"] if len(paths) > _SHOWN else []
            yield DIFFERS.found(
                f"DRBD's configuration of '{resource}' is not the same on {look.here.name} and {other.name}",
                f"Each node goes by its own: {'; '.join([*told, *more])}. After a reboot they may refuse each other, or only one be fenced.",
                f"Correct the files in /etc/drbd.d/ on the node where that is wrong, so that both say the same. {adjusted(resource)}",
                nodes=(look.here.name, other.name),
            )


def _copy(look: Look, node: str, resource: str) -> str:
    """Of the file, which by custom has the resource's name. The other node is not known here where DRBD's configuration does not name it."""
    other = next((each.name for each in look.nodes if each.name != node), "OTHER-NODE")
    return f"'{copying(look.way(other), f'/etc/drbd.d/{resource}.res', '/etc/drbd.d/')}'"


def _difference(path: str, here: Mapping[str, str], there: Mapping[str, str], names: tuple[str, str]) -> str:
    if path.endswith(_SECRET):
        return f"{path} differs"
    values = (plain(found.get(path), 60) or "not set" for found in (here, there))
    return f"{plain(path, 100)} is " + " and ".join(
        f"{value} on {name}" for value, name in zip(values, names, strict=True)
    )


def settings(dump: str, resource: str) -> dict[str, str] | None:
    """A resource's and the common settings in the output of `drbdadm dump`, each by its path; None where it is not there."""
    top = blocks.parse(dump)
    found: dict[str, str] = {}
    own = [block for block in top.named("resource") if block.words[1:2] == (resource,)]
    for block in [*top.named("common"), *own]:
        _flatten(block, "", found)
    return found if own else None


def _flatten(block: Block, path: str, found: dict[str, str]) -> None:
    if block.words[:1] in {(name,) for name in _OF_ONE_NODE}:
        return
    own = " ".join((path, *block.words)).strip()
    for option, words in block.options.items():
        found[f"{own} {option}"] = " ".join(words) or "set"
    for inner in block.blocks:
        _flatten(inner, own, found)


def _in_force(node: Node, resource: str) -> Iterator[Finding]:
    text = node.mapping("adjust").get(resource)
    lines = [line for line in text.splitlines() if _changes(line)] if isinstance(text, str) else []
    if lines:
        yield NOT_IN_FORCE.found(
            f"DRBD resource '{resource}' runs with other settings than {node.name}'s configuration says",
            f"What was written was not taken up, or was changed by hand and will be gone after a reboot. It would be changed by: "
            f"{'; '.join(_shown(line) for line in lines[:_SHOWN])}.",
            f"If the configuration is wrong, correct it on both nodes first. {adjusted(resource, node.name)}",
            nodes=(node.name,),
        )


def adjusted(resource: str, where: str = "each node") -> str:
    """How to take a configuration up. adjust(8) also disconnects or detaches where addresses or disks differ, which fences a node in use."""
    return (
        f"On {where} see first what would be done: 'drbdadm --dry-run adjust {resource}'. If every line is one of drbdsetup's commands that end in "
        f"-options, run 'drbdadm adjust {resource}'; if there is {', '.join(_DISCONNECTS)}, detach or down, it takes the mirror from under the guests: then only "
        "with the storage down on both nodes: shut its guests down, run pvedrbdstor mirror down STORAGE on both, adjust on both, and only then "
        "run pvedrbdstor mirror up STORAGE on both"
    )


def _changes(line: str) -> bool:
    words = line.split()
    return len(words) > 1 and words[0].startswith("drbdsetup") and words[1] in _CHANGES


def _shown(line: str) -> str:
    """Without a secret."""
    return plain(" ".join(word for word in line.split() if _SECRET not in word))
