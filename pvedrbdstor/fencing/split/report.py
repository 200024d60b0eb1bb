"""What `split-brain show` tells: everything known, as one document and as sentences for a person at three in the morning."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.fencing.split.compare import Change, Fate, Written, lost_here, lost_there
from pvedrbdstor.fencing.split.judge import Case, Judgement, who_was_last
from pvedrbdstor.fencing.split.side import Side

_LISTED = 20


@dataclass(frozen=True, slots=True)
class Report:
    """other: None where the other node could not be asked; why_not then says so. other_name: its name, as far as DRBD knows it."""

    own: Side
    other: Side | None
    other_name: str | None
    why_not: str | None
    judgement: Judgement
    changes: tuple[Change, ...] = ()
    in_progress: str | None = None

    @property
    def since(self) -> float | None:
        times = [side.since for side in (self.own, self.other) if side is not None and side.since is not None]
        return min(times, default=None)

    @property
    def detected(self) -> float | None:
        times = [side.detected for side in (self.own, self.other) if side is not None and side.detected is not None]
        return min(times, default=None)


def document(report: Report) -> dict[str, object]:
    """For --json."""
    return {
        "storage": report.own.storage,
        "case": report.judgement.case.value,
        "sentences": list(report.judgement.sentences),
        "node": report.own.node,
        "other": report.other_name,
        "other_asked": report.other is not None,
        "why_not_asked": report.why_not,
        "since": report.since,
        "detected": report.detected,
        "disk": report.own.disk,
        "identifiers": {"here": report.own.identifiers, "there": report.other.identifiers if report.other else None},
        "changes": [
            {
                "path": change.path,
                "image": change.image,
                "fate": change.fate.value,
                "other_path": change.other_path,
                "here_bytes": _bytes(change.here),
                "there_bytes": _bytes(change.there),
            }
            for change in report.changes
        ],
        "lost_if_discarded": {
            "here": list(lost_here(report.changes)),
            "there": list(lost_there(report.changes)) if report.other is not None else None,
        },
        "who_was_last": list(who_was_last(report.own, report.other)) if report.judgement.case is Case.ALONE else [],
        "in_progress": report.in_progress,
    }


def text(report: Report, config: StorageConfig) -> str:
    """For people; ends with a newline."""
    own, other = report.own, report.other_name or "the other node"
    lines = [f"{own.storage}: {_TITLES[report.judgement.case]}. This node is {own.node}, the other one {other}."]
    lines += [f"  {sentence}" for sentence in report.judgement.sentences]
    if report.since is not None:
        lines.append(f"  The copies parted at {_clock(report.since)}.")
    if report.detected is not None:
        lines.append(f"  DRBD found it at {_clock(report.detected)}.")
    if report.why_not is not None:
        lines.append(f"  {other} could not be asked: {report.why_not}. What follows is what {own.node} knows.")
    lines += [f"  {remark}" for remark in own.remarks]
    if report.other is not None:
        lines += [f"  On {report.other.node}: {remark}" for remark in report.other.remarks]
    if report.judgement.case is Case.ALONE:
        lines += _alone(report, config)
    if report.judgement.case in (Case.SPLIT, Case.PERHAPS):
        lines += _changes(report, other)
    if report.judgement.case is Case.SPLIT:
        lines += _what_to_do(report, config, other)
    return "\n".join(lines) + "\n"


_TITLES = {
    Case.SPLIT: "split brain",
    Case.PERHAPS: "perhaps a split brain",
    Case.BEHIND: "no split brain, this copy is old",
    Case.AHEAD: "no split brain, the other copy is old",
    Case.SAME: "no split brain",
    Case.UNRELATED: "two unrelated copies",
    Case.ALONE: "this node is alone",
    Case.CONNECTED: "no split brain",
    Case.DOWN: "DRBD is down",
}


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _changes(report: Report, other: str) -> list[str]:
    own = report.own
    if not own.mounted:
        return ["", f"The file system is not mounted on {own.node}, so its files cannot be named."]
    hint = [] if own.hint else ["  (DRBD's bitmap could not be read whole: any file may have changed.)"]
    changes = [change for change in report.changes if change.fate is not Fate.SAME]
    same = len(report.changes) - len(changes)
    hint += (
        [f"  {same} more files whose blocks may have been written have equal digests on both sides."] if same else []
    )
    if not changes:
        return ["", "No file is known to have changed; the file system's own records have.", *hint]
    rows = [("FILE", own.node, other, "")]
    for change in changes[:_LISTED]:
        rows.append(
            (
                change.path,
                _size(change.here),
                _size(change.there),
                _FATES[change.fate].format(here=own.node, there=other, other_path=change.other_path),
            )
        )
    widths = [max(len(row[at]) for row in rows) for at in range(3)]
    lines = [
        f"  {path:<{widths[0]}}  {here:>{widths[1]}}  {there:>{widths[2]}}  {fate}".rstrip()
        for path, here, there, fate in rows
    ]
    if len(changes) > _LISTED:
        lines.append(f"  ... and {len(changes) - _LISTED} more: --json lists all")
    return [
        "",
        "Changed since the copies parted (DRBD's bitmaps say how much was written, digests whether it makes a difference):",
        *lines,
        *hint,
    ]


_FATES = {
    Fate.DIFFERS: "the two differ",
    Fate.SAME: "the two are equal",
    Fate.ONLY_HERE: "only on {here}",
    Fate.ONLY_THERE: "only on {there}",
    Fate.CHANGED: "not compared",
    Fate.RENAMED: "is {other_path} on {there}",
}


def _size(written: Written | None) -> str:
    return "?" if written is None else str(written) if written.most else "-"


def _bytes(written: Written | None) -> dict[str, int] | None:
    return None if written is None else {"sure": written.sure, "at_most": written.most}


def _what_to_do(report: Report, config: StorageConfig, other: str) -> list[str]:
    own = report.own.node
    lines = ["", f"If {own}'s copy is thrown away, lost is:", *_losses(lost_here(report.changes))]
    if report.other is not None:
        lines += [f"If {other}'s copy is thrown away, lost is:", *_losses(lost_there(report.changes))]
    else:
        lines += [f"What {other} would lose: run 'pvedrbdstor split-brain show {config.id}' there."]
    if report.in_progress is not None:
        return [*lines, "", report.in_progress]
    return [
        *lines,
        "",
        "Choose the copy to keep; the other one is preserved aside before anything of it is discarded.",
        f"To keep {other}'s copy, run on {own}, this node:",
        f"  pvedrbdstor split-brain resolve {config.id} --keep {report.other_name or 'NODE'}",
        f"To keep {own}'s copy, run on {other}:",
        f"  pvedrbdstor split-brain resolve {config.id} --keep {own}",
        "Until then both nodes go on with copies of their own: start no guest that ran on the other node.",
    ]


def _losses(sentences: tuple[str, ...]) -> list[str]:
    shown_ = [f"  - {sentence}" for sentence in sentences[:_LISTED]]
    more = [f"  - and {len(sentences) - _LISTED} more: --json lists all"] if len(sentences) > _LISTED else []
    return [*shown_, *more] if sentences else ["  - nothing that is known"]


def _alone(report: Report, config: StorageConfig) -> list[str]:
    lines = ["", f"DRBD calls this copy {report.own.disk}.", *who_was_last(report.own, report.other)]
    if report.own.disk == "Consistent":
        lines += [
            "To force it, on this node only, with the other one switched off:",
            f"  drbdadm primary --force {config.resource}",
            f"  pvedrbdstor mirror up {config.id} --without-peer",
        ]
    elif report.own.disk == "UpToDate":
        lines += ["To go on without the other node:", f"  pvedrbdstor mirror up {config.id} --without-peer"]
    return lines
