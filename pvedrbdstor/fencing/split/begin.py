"""From a split brain to a plan: what must be so before anything is touched, how the side to lose is preserved, in what steps."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd.generation_ids import same_base
from pvedrbdstor.drbd.metadata import Range, merged
from pvedrbdstor.errors import SplitRefused
from pvedrbdstor.fencing.split import copies, hands, investigate, look, preserve, snapshot, verify
from pvedrbdstor.fencing.split.compare import lost_here
from pvedrbdstor.fencing.split.journal import Journal
from pvedrbdstor.fencing.split.judge import Case
from pvedrbdstor.fencing.split.plan import Refusal, in_use
from pvedrbdstor.fencing.split.report import Report
from pvedrbdstor.fencing.split.steps import Preserve, Step
from pvedrbdstor.mirror.facts import drbd_facts
from pvedrbdstor.sizes import format_size

_LISTED = 20
_WHOLE = ("UpToDate", "Consistent")


@dataclass(frozen=True, slots=True)
class Begun:
    """A journal in which nothing is done yet, and what it was made from. needed: bytes of the copies."""

    journal: Journal
    report: Report
    needed: int


def begin(config: StorageConfig, *, keep: str | None, folder: str | None, other_file: str | None) -> Begun:
    """Raises SplitRefused, BadRequest, CommandFailed, CommandTimeout, OSError. Changes nothing."""
    report = investigate.investigate(config, other_file)
    against = investigate.not_to_connect(config)
    compares = verify.has_algorithm(config)
    users = hands.users(config.path) if report.own.mounted else ()
    refusal = refuse(report, keep=keep, against=against, compares=compares, users=users)
    if refusal is None:
        device = hands.lower_device(config)
        own = report.own
        to_copy = preserve.to_copy(own, report.other)
        began = time.time()
        choice = preserve.choose(
            storage=config.id,
            stamp=preserve.stamp(began),
            volume=None if folder is not None else snapshot.volume_of(device),
            marked=merged([*own.blocks, *(report.other.blocks if report.other else ())]),
            folder=folder,
            unfit=copies.unfit(folder) if folder is not None else None,
            room=copies.room(folder) if folder is not None else 0,
            files=sum(file.used for file in to_copy) if own.mounted else None,
            device=preserve.device_size(device),
            hints=own.hint and report.other is not None and report.other.hint,
        )
        if not isinstance(choice, Refusal):
            ids, theirs = own.ids, report.other.ids if report.other is not None else None
            assert ids is not None  # refuse() has seen to it
            journal = Journal(
                storage=config.id,
                keep=str(report.other_name),
                discard=own.node,
                began=began,
                current=ids.current,
                bitmap=ids.bitmap,
                keeper=theirs.current if theirs is not None else None,
                preserve=choice.how,
                target=choice.target,
                size=choice.size,
                files=tuple(file.path for file in to_copy) if choice.how is Preserve.FILES else (),
                ranges=_to_compare(report, preserve.device_size(device)),
            )
            if os.path.exists(choice.target) or preserve.is_there(journal):
                remedy = "Wait a second and run it again"
                raise SplitRefused(storage=config.id, cause=f"{choice.target} is there already", remedy=remedy)
            return Begun(journal, report, choice.needed)
        refusal = choice
    raise SplitRefused(storage=config.id, cause=refusal.cause, remedy=refusal.remedy)


def _to_compare(report: Report, size: int) -> tuple[Range, ...]:
    """What both bitmaps have, if they are known to begin at the same moment; else everything."""
    own, other = report.own, report.other
    if other is None or not _same_base(report) or not (own.hint and other.hint):
        return ((0, size),)
    return merged([*own.blocks, *other.blocks])


def _same_base(report: Report) -> bool:
    own, other = report.own.ids, report.other.ids if report.other is not None else None
    return own is not None and other is not None and same_base(own, other)


def refuse(
    report: Report, *, keep: str | None, against: Refusal | None, compares: bool, users: tuple[str, ...]
) -> Refusal | None:
    """Why this is not to be resolved here and now; pure. against: why the nodes must not meet. compares: DRBD can verify."""
    storage, own = report.own.storage, report.own
    if report.other_name is None:
        return Refusal(
            "DRBD's configuration does not name exactly one other node",
            "Look at 'drbdadm dump'; a mirror of more than two nodes is resolved by hand",
        )
    if keep is not None and keep != report.other_name:
        return Refusal(
            f"'{keep}' is neither this node ({own.node}) nor the other one ({report.other_name})",
            f"Look at 'pvedrbdstor split-brain show {storage}'",
        )
    if report.judgement.case is not Case.SPLIT:
        said = report.judgement.sentences[0].rstrip(".")
        return Refusal(
            f"it is no split brain for certain. {said}",
            f"Look at 'pvedrbdstor split-brain show {storage}', on both nodes",
        )
    if own.ids is None:
        return Refusal(
            f"DRBD's identifiers of {own.node}'s copy cannot be read, so nobody could tell later which copy it was",
            "Look at 'drbdadm get-gi' and 'dmesg'",
        )
    if report.other is not None and report.other.disk not in _WHOLE:
        return Refusal(
            f"{report.other_name}'s disk is {report.other.disk or 'down'}, so there is no whole copy to be kept there",
            f"Bring that disk up, or keep {own.node}'s copy by running this on {report.other_name}",
        )
    if report.other is not None and report.other.resolving is not None:
        return Refusal(*investigate.decided_otherwise(storage, report.other_name, report.other.resolving))
    if against is not None:
        return against
    if not compares and not _same_base(report):
        return Refusal(
            "nothing says that DRBD's bitmaps of both sides begin at the same moment, so only a comparison of the disks could tell "
            "that the resync has made them equal, and no 'verify-alg' is set",
            "Set 'verify-alg' in net { } of the resource on both nodes ('drbdadm adjust'), e.g. crc32c",
        )
    if users:
        return in_use(storage, own.node, users)
    return None


def connection(config: StorageConfig) -> str | None:
    """DRBD's word; None while it is down. Raises CommandFailed, CommandTimeout."""
    drbd = drbd_facts(look.drbd_state(config.resource), config.resource, config.volume)
    return drbd.peers[0].connection if drbd is not None else None


def other_name(config: StorageConfig) -> str | None:
    names = investigate.peers(config)
    return names[0] if len(names) == 1 else None


def text(begun: Begun, config: StorageConfig) -> str:
    """The plan for people; ends with a newline."""
    journal, report = begun.journal, begun.report
    lost = lost_here(report.changes)
    lines = [
        f"{config.id}: keep {journal.keep}'s copy, discard {journal.discard}'s (this node).",
        *(f"  {sentence}" for sentence in report.judgement.sentences),
        f"What {journal.discard} loses:",
        *[f"  - {sentence}" for sentence in lost[:_LISTED]],
        *([f"  - and {len(lost) - _LISTED} more"] if len(lost) > _LISTED else []),
        *(["  - nothing that is known"] if not lost else []),
        "Steps:",
        *(f"  {number}. {step}" for number, step in enumerate(_steps(begun, config), 1)),
    ]
    if report.why_not is not None:
        lines.append(
            f"{journal.keep} could not be asked ({report.why_not}): step 5 will wait until the command was run there."
        )
    return "\n".join(lines) + "\n"


def _steps(begun: Begun, config: StorageConfig) -> tuple[str, ...]:
    journal, name = begun.journal, config.resource
    match journal.preserve:
        case Preserve.SNAPSHOT:
            sized = f" of {format_size(journal.size)}" if journal.size else ""
            kept = (
                f"unmount {config.path} here, make DRBD Secondary",
                f"take a snapshot{sized} of the lower device: {journal.target}",
            )
        case Preserve.FILES:
            count = len(journal.files)
            kept = (
                f"make {config.path} read-only here and copy what this side changed, {count} files of {format_size(begun.needed)}, to {journal.target}",
                f"unmount {config.path} here, make DRBD Secondary",
            )
        case _:
            kept = (
                "make DRBD Secondary here",
                f"copy the whole lower device, {format_size(begun.needed)} at most, to {os.path.join(journal.target, copies.DEVICE_FILE)}",
            )
    return (
        f"drbdadm disconnect {name}, unless it is StandAlone",
        *kept,
        "check what was preserved",
        f"drbdadm connect --discard-my-data {name} here; drbdadm connect {name} on {journal.keep}, if it is StandAlone",
        f"{Step.RESYNC.value}, then compare the changed blocks",
        "bring the storage up here again",
    )
