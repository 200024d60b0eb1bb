"""What `setup` prints: facts, a plan with all it writes and runs, the steps while they are taken."""

from __future__ import annotations

import difflib
import fcntl
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import click

from pvedrbdstor.cli.output import Column, table, text_cell
from pvedrbdstor.errors import SetupRefused
from pvedrbdstor.setup import link, paths
from pvedrbdstor.setup.facts import Disk, Facts
from pvedrbdstor.setup.hands import Outcome
from pvedrbdstor.setup.journal import Journal
from pvedrbdstor.setup.plan import Plan
from pvedrbdstor.setup.steps import DESTROYING, TOUCHING, File, Kind, Step, printable
from pvedrbdstor.setup.undo import Act
from pvedrbdstor.sizes import format_size

_DISKS = (Column("Device"), Column("Size", True), Column("Model"), Column("Serial"), Column("Holds"), Column("Used by"))
_NETWORK = (Column("Interface"), Column("Addresses"), Column("Mbit/s", True), Column("MTU", True))


def facts(found: Facts) -> str:
    """One node."""
    networks = [
        [each.name, ", ".join(each.addresses) or "-", text_cell(each.speed), str(each.mtu)]
        for each in found.interfaces
        if each.name != "lo"
    ]
    packages = (
        ", ".join(f"{name} {version}" for name, version in sorted(found.packages.items()))
        or "none of those that matter"
    )
    modules = f"DRBD {found.drbd or 'none'}, OCFS2 {'yes' if found.ocfs2 else 'none'}"
    lines = [
        f"Node {found.host}, kernel {found.kernel}: {modules}.",
        f"Packages: pvedrbdstor {found.version}, {packages}.",
    ]
    lines.append(f"The guard of fencing {'runs' if found.guard else 'does not run'}.")
    if found.missing:
        lines.append(f"Missing: {', '.join(found.missing)}.")
    return "\n".join(lines) + f"\n\n{disk_table(found.disks)}\n{table(_NETWORK, networks)}"


def disk_table(found: Sequence[Disk]) -> str:
    rows = [
        [
            disk.path,
            format_size(disk.size),
            text_cell(disk.model),
            text_cell(disk.serial),
            ", ".join(disk.signatures) or "nothing",
            "; ".join((*disk.users, *(f"DRBD's configuration of '{each}'" for each in disk.drbd))) or "nobody",
        ]
        for disk in found
    ]
    return table(_DISKS, [[printable(cell) for cell in row] for row in rows])


def plan(made: Plan, nodes: Mapping[str, Facts], kept: str) -> str:
    """Everything, in the order in which it would be done."""
    lines = [f"To make storage {made.answers.storage}, from this node, {made.lead}:", _link(made), ""]
    for number, step in enumerate(made.steps, 1):
        lines += _step(number, step, nodes[step.node])
    lines += ["Know before:", *(f"  - {note}" for note in made.notes), ""]
    lines += [
        f"Nothing was changed. The plan is in {kept}.",
        f"Do it with: pvedrbdstor setup apply {made.answers.storage}",
    ]
    return "\n".join(printable(line) for line in lines) + "\n"


def summary(found: Plan, journal: Journal) -> str:
    """What apply is about to do, in short: the plan has it whole."""
    done = len(set(journal.done))
    begun = f", of which {done} are done" if journal.begun else ""
    lines = [f"Storage {found.answers.storage}: {len(found.steps)} steps{begun}."]
    wiped = {step.node for step in found.steps if step.kind is Kind.WIPE and step.id in journal.done}
    for device in found.devices:
        state = ", wiped" if device.node in wiped else _wiped(device.wiped)
        known = f" ({device.identity})" if device.identity else ""  # the name may be another one since a boot
        told = f"{device.path}{known}, {format_size(device.size)}{'' if journal.finished else state}"
        lines.append(f"  {device.node}: {told}")
    lines.append(f"  {_link(found)}")
    return "\n".join(printable(line) for line in (*lines, *(f"  - {note}" for note in found.notes))) + "\n"


def _link(found: Plan) -> str:
    return f"The link {found.link.network}, port {found.port}: {link.words(found.link, found.measured)}."


def question(found: Plan, journal: Journal) -> str | None:
    """Names every device that is still to be overwritten; None where there is none."""
    if journal.finished:
        return None
    left = [step for step in found.steps if step.kind in DESTROYING and step.id not in journal.done]
    nodes = {step.node for step in left if step.kind in TOUCHING}
    places = [f"{device.path} on {device.node}" for device in found.devices if device.node in nodes]
    if not places:  # DRBD's own, which lies on what this plan has made
        places = list(dict.fromkeys(f"{step.about['device']} on {step.node}" for step in left))
    return printable(f"Everything on {' and '.join(places)} will be lost. Go on?") if places else None


def undo(found: Plan, acts: Sequence[Act], warning: str | None) -> str:
    """The commands, in the order in which they are to be run; those that are no commands as what is to be done."""
    storage = found.answers.storage
    if not acts:
        return f"Nothing was done of the plan of storage {storage}: there is nothing to take back.\n"
    lines = [
        f"What takes back what was done for storage {storage}. Nothing of it was run. Look at each before you do:",
        *([warning] if warning is not None else []),
        "",
    ]
    for act in acts:
        lines.append(f"{act.node}: {act.why}")
        lines += [f"   $ {shlex.join(act.words)}"] if act.words else []
    lines += ["", f"Then 'pvedrbdstor setup plan {storage} --anew' puts this plan away."]
    return "\n".join(printable(line) for line in lines) + "\n"


def done(found: Plan, said: Sequence[str]) -> str:
    storage = found.answers.storage
    lines = [*said, f"Storage {storage} is set up. Watch its first copy with 'pvedrbdstor mirror status {storage}'."]
    if not found.answers.without_fencing:
        lines.append(f"Look, on both nodes, whether fencing works: 'pvedrbdstor fencing status {storage}'.")
    return "\n".join(lines) + "\n"


class Steps:
    """Progress on standard error, a line for each step. said: what the last steps told of the storage."""

    def __init__(self, found: Plan, *, quiet: bool) -> None:
        self.said: list[str] = []
        self._numbers = {step.id: at for at, step in enumerate(found.steps, 1)}
        self._quiet = quiet
        self._began = 0.0
        self._open = False

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *_: object) -> None:
        self._end("")

    def __call__(self, step: Step, outcome: Outcome | None) -> None:
        if outcome is None:
            self._began, self._open = time.monotonic(), not self._quiet
            self._print(f"[{self._numbers[step.id]}/{len(self._numbers)}] {step.node}: {printable(step.title)} ... ")
            return
        took = time.monotonic() - self._began
        self._end("done already" if outcome.already else f"done, {took:.0f} s" if took >= 1 else "done")
        if outcome.said:
            self.said.append(f"{step.node}: {outcome.said}")

    def _end(self, word: str) -> None:
        if self._open:
            self._print(f"{word}\n")
            self._open = False

    def _print(self, text: str) -> None:
        if not self._quiet:
            click.echo(text, err=True, nl=False)


@contextmanager
def only_one(storage: str) -> Iterator[None]:
    """One apply of a storage at a time. Raises SetupRefused, OSError."""
    os.makedirs(paths.FOLDER, mode=0o700, exist_ok=True)
    fd = os.open(f"{paths.FOLDER}/{storage}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SetupRefused(
                storage=storage, cause="another 'pvedrbdstor setup' works on it", remedy="Look for its terminal"
            ) from error
        yield
    finally:
        os.close(fd)


def _step(number: int, step: Step, node: Facts) -> list[str]:
    lines = [f"{number}. {step.node}: {step.title}"]
    if step.why:
        lines.append(f"   why: {step.why}")
    for file in step.files:
        lines += _file(file, node.files.get(file.path))
    lines += [f"   $ {shlex.join(words)}" for words in step.commands]
    return [*lines, ""]


def _file(file: File, before: str | None) -> list[str]:
    if before == file.content:
        return [f"   {file.path} is so already"]
    old, new = (_printable(text or "").splitlines() for text in (before, file.content))
    if before is None:
        return [f"   writes {file.path}:", *(f"   | {line}" for line in new)]
    changes = difflib.unified_diff(old, new, lineterm="", n=2)
    return [f"   changes {file.path}:", *(f"   | {line}" for line in list(changes)[2:])]


def _printable(text: str) -> str:
    """Bytes that are no UTF-8 as question marks."""
    return text.encode("utf-8", "replace").decode()


def _wiped(words: Sequence[str]) -> str:
    return f", destroying what is on it: {', '.join(words)}" if words else ", empty"
