"""What the check of the write path has found, as JSON and in words. No I/O here."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from pvedrbdstor.drbd.disk_cache import WRITE_BACK
from pvedrbdstor.pve.drives import Drive
from pvedrbdstor.verify.write_path import facts
from pvedrbdstor.verify.write_path.engines import Mode, Result
from pvedrbdstor.verify.write_path.facts import Direction, Outcome, Risk, Why
from pvedrbdstor.verify.write_path.pattern import BLOCK


def as_json(outcome: Outcome) -> dict[str, object]:
    """Times in milliseconds but for `began` (seconds since 1970) and `seconds`."""
    return {
        "storage": outcome.storage,
        "verdict": outcome.verdict,
        "exit_status": outcome.exit_status,
        "nodes": [outcome.here, outcome.there],
        "began": outcome.began,
        "seconds": round(outcome.seconds, 1),
        "blocks": outcome.blocks,
        "block_size": BLOCK,
        "directions": [_direction(direction) for direction in outcome.directions],
        "modes": [
            {
                "node": tried.node,
                "aio": tried.mode.aio,
                "cache": tried.mode.cache,
                "result": tried.result.value,
                "detail": tried.detail or None,
            }
            for tried in outcome.modes
        ],
        "disks_of_guests": outcome.guests,
        "at_risk": [
            {
                "why": risk.why.value,
                "detail": risk.detail or None,
                "disks": [_disk(drive) for drive in risk.drives],
                "remedies": list(remedies(risk, outcome)),
            }
            for risk in outcome.risks
        ],
        "unchecked": list(outcome.unchecked),
    }


def text(outcome: Outcome) -> str:
    lines = [f"{outcome.storage}: {_headline(outcome)}"]
    for direction in outcome.directions:
        lines += [f"  {line}" for line in _followed(direction)]
    lines += [f"  {line}" for line in _modes(outcome)]
    for risk in outcome.risks:
        lines += [f"  {line}" for line in _risk(risk, outcome)]
    if outcome.guests is not None and not outcome.risks:
        lines.append(f"  No disk of a guest is at risk by its cache or aio mode ({outcome.guests} looked at).")
    lines += [f"  Not checked: {sentence}." for sentence in outcome.unchecked]
    return "\n".join(lines) + "\n"


def remedies(risk: Risk, outcome: Outcome) -> Iterator[str]:
    """A command for each disk; in force after the guest's next start."""
    if risk.why is Why.MODE:
        better = facts.safer(outcome.modes)
        if better is None:
            return
        options = {"cache": better.cache, "aio": better.aio}
    else:
        options = None
    for drive in risk.drives:
        if not drive.pending:
            yield f"qm set {drive.vmid} --{drive.key} {shlex.quote(drive.changed(**(options or drive.cached)))}"


def _direction(direction: Direction) -> dict[str, object]:
    ground = direction.ground
    return {
        "writer": direction.writer,
        "reader": direction.reader,
        "latency_ms": _rounded(direction.latencies()),
        "on_the_readers_disk": {
            "at_first_look": direction.at_first_look,
            "late": direction.late,
            "missing": direction.missing,
            "seen_within_ms": _rounded(direction.lags()),
            "disk": ground.lower,
            "write_cache": ground.write_cache,
            "drbd_flushes_it": ground.flushes,
            "protocols": list(ground.protocols),
        },
        "wrong_through_the_mount": direction.changed,
    }


def _disk(drive: Drive) -> dict[str, object]:
    return {
        "vmid": drive.vmid,
        "disk": drive.key,
        "cache": drive.cache,
        "aio": drive.aio,
        "pending": drive.pending,
    }


def _headline(outcome: Outcome) -> str:
    match outcome.verdict:
        case "ok":
            return "what either node writes is on the other's disk when it is acknowledged, and reads there as it was written."
        case "mismatch":
            return "the write path DOES NOT hold what it promises."
    return "nothing wrong was found, but not all could be checked."


def _followed(direction: Direction) -> Iterator[str]:
    count, reader = len(direction.seen), direction.reader
    yield (
        f"{direction.writer} writes {count} blocks of {BLOCK >> 10} KiB (O_DIRECT, O_DSYNC), {reader} reads them: "
        f"a write takes {_times(direction.latencies())}."
    )
    ground = direction.ground
    if direction.at_first_look:
        lags = direction.lags()
        none_before = ", and protocol C acknowledges none before" if not ground.loose else ""
        yield (
            f"  {reader}'s disk ({ground.lower}, below DRBD) gave back every one at the first look, at most {_ms(lags['p50'])} after it was "
            f"acknowledged (median; {_ms(lags['max'])} the slowest; the way there and back included){none_before}."
        )
    if direction.late:
        yield (
            f"  {direction.late} of {count} writes were NOT on {reader}'s disk yet when they were acknowledged, but up to "
            f"{_ms(direction.lags()['max'])} later: a node that dies in between takes them with it."
        )
    if direction.missing:
        yield f"  {direction.missing} of {count} writes were NOT found on {reader}'s disk ({ground.lower}) at all."
    if direction.changed:
        yield f"  {direction.changed} of {count} blocks read DIFFERENTLY through the mount of {reader}."
    yield from (f"  {line}" for line in _safety(direction))


def _safety(direction: Direction) -> Iterator[str]:
    ground, reader = direction.ground, direction.reader
    if ground.loose:
        yield (
            f"DRBD replicates with protocol {', '.join(ground.loose)}, which acknowledges before the other disk has it: set 'protocol C' in "
            "net { } on both nodes."
        )
    if ground.volatile:
        yield (
            f"{reader}'s disk has a volatile cache, which DRBD does not flush (disk-flushes no): unless a battery keeps it, a power failure "
            "takes what is in there. Set 'disk-flushes yes' in disk { }."
        )
    elif ground.write_cache == WRITE_BACK:
        yield f"{reader}'s disk has a volatile cache; DRBD flushes it when the file system asks for that."


def _modes(outcome: Outcome) -> Iterator[str]:
    """Each mode once, with what each node says."""
    results: dict[Mode, list[tuple[str, Result, str]]] = {}
    for tried in outcome.modes:
        results.setdefault(tried.mode, []).append((tried.node, tried.result, tried.detail))
    if results:
        yield "QEMU's modes, tried on both nodes and read on the other:"
    for mode, found in results.items():
        if all(result is Result.OK for _, result, _ in found):
            yield f"  {mode}: ok"
            continue
        for node, result, detail in found:
            yield f"  {mode}: {result.value} on {node}" + (f" ({detail})" if detail else "")


def _risk(risk: Risk, outcome: Outcome) -> Iterator[str]:
    who = named(risk.drives)
    match risk.why:
        case Why.MODE:
            yield f"At risk, as they use {risk.detail}: {who}."
        case Why.FLUSHES:
            yield (
                f"At risk when a node loses its power: {who}. They use O_DIRECT (cache=none, Proxmox's default, or directsync), with which "
                "the kernel's OCFS2 loses flushed writes of the last 5 s into blocks never written before, or shared with a snapshot or clone."
            )
        case Why.UNSAFE:
            yield f"At risk when a node loses its power: {who}. With cache=unsafe QEMU ignores the guest's flushes."
    commands = list(remedies(risk, outcome))
    if commands:
        yield "  What helps, from each guest's next start on:"
        yield from (f"    {command}" for command in commands)


def named(drives: Sequence[Drive]) -> str:
    """`VM 100 (scsi0, scsi1), VM 101 (virtio0, pending)`"""
    guests: dict[int, list[str]] = {}
    for drive in drives:
        guests.setdefault(drive.vmid, []).append(f"{drive.key}, pending" if drive.pending else drive.key)
    return ", ".join(f"VM {vmid} ({', '.join(keys)})" for vmid, keys in guests.items())


def _times(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {_ms(value)}" for name, value in values.items())


def _ms(value: float) -> str:
    return f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}
