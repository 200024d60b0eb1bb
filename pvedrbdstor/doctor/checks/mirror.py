"""The verdicts of `pvedrbdstor mirror status` on each node: fencing, arbiter, time-outs, copies, mount. One truth, told again here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pvedrbdstor.doctor.facts import Look, Node, plain
from pvedrbdstor.doctor.finding import Entry, Finding, Severity
from pvedrbdstor.fencing import status as guard_status
from pvedrbdstor.fencing.constants import LOOKBACK_SECONDS
from pvedrbdstor.mirror.finding import Kind
from pvedrbdstor.mirror.finding import Severity as Loudness

_SENTENCE_MAX = 1500
_BOTH = (Severity.ERROR, Severity.WARNING)
_FINDS = {
    Kind.UNKNOWN: "nobody can say how the mirror is",
    Kind.SPLIT_BRAIN: "both copies were changed, or may be",
    Kind.INCONSISTENT: "no complete copy can be reached",
    Kind.STALE: "this copy is out of date, and no other can be reached",
    Kind.SUSPENDED: "reads and writes wait",
    Kind.READ_ONLY: "OCFS2 has remounted itself read-only",
    Kind.NOT_UP: "the storage is not mounted, or something else is, also with `localflocks`",
    Kind.UNPROTECTED: "fencing, handler, guard, arbiter, time-outs or policies after a split brain would let two histories arise",
    Kind.DEGRADED: "works on one copy, before a resync is done, or with a QDevice that does not answer or casts no vote",
}
_MEANS = {
    Kind.UNKNOWN: "Nothing is assumed to be well: guests that run go on, new ones are not started.",
    Kind.SPLIT_BRAIN: "Both nodes may be writing histories of their own, one of which will be lost: decide soon which to keep.",
    Kind.INCONSISTENT: "Guests cannot use the storage on this node.",
    Kind.STALE: "Guests on this node would read old data, so the storage is not used here.",
    Kind.SUSPENDED: "Guests stand still until I/O goes on.",
    Kind.READ_ONLY: "All writes of this node's guests fail.",
    Kind.NOT_UP: "Guests cannot use the storage on this node.",
    Kind.UNPROTECTED: "All works today; at the next failure of a node or link the mirror may split, stand still, or lose what one side wrote.",
    Kind.DEGRADED: "All works today, with less to fall back upon.",
}
_MIRROR = {kind: Entry(f"mirror-{kind.value}", _BOTH, _FINDS[kind]) for kind in _FINDS}
HANDICAP = Entry("guard-handicap", (Severity.WARNING,), "this node could not go on if the other one were lost now")
OLD_GUARD = Entry("guard-old", (Severity.HINT,), "the running guard is that of another version")
ENTRIES = (*_MIRROR.values(), HANDICAP, OLD_GUARD)
_LOUD = (Loudness.ERROR.name.lower(), Loudness.CRITICAL.name.lower())


def check(look: Look) -> Iterator[Finding]:
    for node in look.nodes:
        for storage in look.storages:
            verdict = node.mapping(f"verdict:{storage.id}")
            also = verdict.get("also")
            for found in (verdict, *(also if isinstance(also, list) else ())):
                if isinstance(found, dict) and (finding := _finding(node, storage.id, found)) is not None:
                    yield finding
        yield from _guard(node)


def _finding(node: Node, storage: str, found: Mapping[str, object]) -> Finding | None:
    """None of what is healthy, or of a kind that is not known here."""
    entry = next((_MIRROR[kind] for kind in _MIRROR if kind.value == found.get("kind")), None)
    cause, remedy = plain(found.get("cause"), _SENTENCE_MAX), plain(found.get("remedy"), _SENTENCE_MAX)
    if entry is None or not cause:
        return None
    kind = Kind(found["kind"])
    return entry.found(
        cause.rstrip("."),
        _MEANS[kind],
        remedy.rstrip("."),
        nodes=(node.name,),
        storage=storage,
        severity=Severity.ERROR if found.get("severity") in _LOUD else Severity.WARNING,
    )


def _guard(node: Node) -> Iterator[Finding]:
    """A guard that does not run is the verdict's to tell, where one is needed."""
    boot = node.values.get("boot")
    guard = guard_status.parse(node.text("guard"), float(boot)) if isinstance(boot, float) else None
    if guard is None:
        return
    if guard.handicap is not None and not guard.outages:
        yield HANDICAP.found(
            f"Were the other node lost now, {node.name} could not go on: {plain(guard.handicap)}",
            "Both nodes would then freeze, or this one reset itself.",
            f"Wait {LOOKBACK_SECONDS:.0f} s, after which what has passed is forgiven, and look again with 'pvedrbdstor fencing status', "
            "which names what does not pass by itself",
            nodes=(node.name,),
        )
    if guard.version not in (None, node.version):
        yield OLD_GUARD.found(
            f"The guard that runs is of version {plain(guard.version)}, {plain(node.version)} is installed",
            "No upgrade restarts it, as a guard that has just begun cannot let its node go on.",
            "While DRBD is connected: 'systemctl restart pvedrbdstor-fence', on one node after the other, a minute apart",
            nodes=(node.name,),
        )
