"""Whether each node has what finds the images on its disk when the file system is gone."""

from __future__ import annotations

from collections.abc import Iterator

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.doctor.facts import Look, Node, plain
from pvedrbdstor.doctor.finding import Entry, Finding, Severity

NONE = Entry("metadata-backup-none", (Severity.HINT,), "a node has no backup of the storage's metadata")
OLD = Entry("metadata-backup-old", (Severity.HINT,), "a node's last backup of the metadata is more than five weeks old")
DAMAGED = Entry(
    "metadata-backup-damaged", (Severity.WARNING,), "a node's last backup of the metadata is not as it was written"
)
ENTRIES = (NONE, OLD, DAMAGED)
_DAY = 86400
_OLD_DAYS = 35
"""The timer saves each week."""
_LAST_RESORT = "Where OCFS2 can no longer be repaired, it alone tells where on the disk each image lies."


def check(look: Look) -> Iterator[Finding]:
    for storage in look.storages:
        told = [node for node in look.nodes if f"metadata:{storage.id}" in node.values]
        yield from _judge(storage, told)


def _judge(storage: StorageConfig, told: list[Node]) -> Iterator[Finding]:
    source, run = f"metadata:{storage.id}", f"'pvedrbdstor metadata save {storage.id}'"
    without = tuple(node.name for node in told if not node.mapping(source))
    if without:
        yield NONE.found(
            f"There is no backup of the metadata on {' and '.join(without)}",
            _LAST_RESORT,
            f"Run {run} there; 'systemctl enable --now pvedrbdstor-metadata.timer' does it each week, as the package sets it up",
            storage=storage.id,
            nodes=without,
        )
    for node in told:
        damaged = node.mapping(source).get("damaged")
        if isinstance(damaged, list) and damaged:
            yield DAMAGED.found(
                f"The last backup of the metadata on {node.name} is damaged",
                f"{plain(damaged[0]).rstrip('.') or 'It does not say how'}. {_LAST_RESORT}",
                f"Run {run} there, and look at the disk that it is on",
                storage=storage.id,
                nodes=(node.name,),
            )
    old = tuple(node.name for node in told if (at := _at(node, source)) is not None and node.at - at > _OLD_DAYS * _DAY)
    if old:
        yield OLD.found(
            f"The last backup of the metadata on {' and '.join(old)} is more than {_OLD_DAYS} days old",
            "What was made, moved or grown since lies elsewhere than it says.",
            f"Run {run} there, and see with 'systemctl status pvedrbdstor-metadata.timer' why it is not done each week",
            storage=storage.id,
            nodes=old,
        )


def _at(node: Node, source: str) -> float | None:
    at = node.mapping(source).get("at")
    return float(at) if isinstance(at, int | float) and 0 <= at < 1 << 40 else None
