"""Make docs/messages.md from the code: every error, verdict and problem that pvedrbdstor tells, with its remedy.

`tools/messages.py FILE` writes the page, `tools/messages.py` prints it. The texts are read from the sources (the raising and yielding calls),
not kept anywhere else, so the page cannot say what the program does not.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tools"))

from message_texts import FOUND, TOLD, Call, Module, calls, modules  # noqa: E402 - from beside this file

from pvedrbdstor import errors  # noqa: E402
from pvedrbdstor.doctor.checks import CATALOGUE  # noqa: E402
from pvedrbdstor.doctor.checks.faults import KERNEL_FAULTS  # noqa: E402
from pvedrbdstor.mirror.finding import Kind  # noqa: E402
from pvedrbdstor.service import protocol  # noqa: E402

HEAD = """# Every message and its remedy

<!-- Made by tools/messages.py from the sources: do not edit. `./dev docs` renews it. -->

What pvedrbdstor says when something is not as it should be, and what to do then. Look for a few words of the message.
Words in capitals stand for what the message names: a storage, a node, a number. `[...]` is said only where it applies,
`(... | ...)` is one of several, `...` is text that comes from elsewhere.

Every message says what happened and what to do, so mostly this page only repeats it. The pages that it leads to say why:
[verdicts.md](verdicts.md), [fencing.md](fencing.md), [split-brain.md](split-brain.md), [verify.md](verify.md),
[activation.md](activation.md), [doctor.md](doctor.md), [setup.md](setup.md).

Not on this page are the lines of progress of each command, the notes of a plan of `setup`, the reports of `verify` and `split-brain`, which
explain themselves, the journal of the fencing guard, and the words of DRBD, OCFS2 and the kernel themselves.
"""

ERRORS = {
    name: cls
    for module in (errors, protocol)
    for name, cls in inspect.getmembers(module, inspect.isclass)
    if issubclass(cls, errors.Error) and cls is not errors.Error
}
# Values that become an error elsewhere, by the folder they are made in.
CARRIERS = {
    ("Refusal", "mirror/bringup"): "BringUpRefused",
    ("Refusal", "fencing/split"): "SplitRefused",
    ("Refusal", "setup"): "setup",
    ("NotNow", "setup"): "SetupStepFailed",
    ("Obstacle", "verify/write_path"): "WritePathUnchecked",
    ("Obstacle", "verify"): "VerifyRefused",
}
AREAS = (
    (range(1, 10), "The program itself"),
    (range(10, 20), "Requests and names"),
    (range(20, 40), "Volumes and snapshots"),
    (range(40, 60), "The file system and the mirror under it"),
    (range(60, 80), "Time, and other programs"),
    (range(80, 100), "Comparing the copies"),
    (range(100, 100000), "Further"),
    (range(-40000, 0), "The wire between Proxmox's plugin and the service"),
)


@dataclass(frozen=True)
class Row:
    """One thing that can be told. of: the error's class, the verdict, the finding, `quorum`, `times` or `setup`."""

    of: str
    cause: str
    remedy: str


def rows(found: Iterable[Module]) -> list[Row]:
    """What all calls tell, each once."""
    told = {row: None for module in found for call in calls(module, set(ERRORS)) if (row := _row(call, module))}
    return list(told)


def _row(call: Call, module: Module) -> Row | None:
    of = _group(call, module)
    texts = {name: re.sub(r"(?<!\.)\.$", "", text.strip()) for name, text in call.texts.items()}
    cause = texts.get("cause") or texts.get("detail") or ""
    if of == "times":
        cause, remedy = f"{texts['name']}: else {texts['otherwise']}", f"Set {texts['setting']}"
        return Row(of, cause, remedy)
    if "found" in texts and "expected" in texts:
        cause = f"{texts['found']} where {texts['expected']} is expected"
    if "operation" in texts:
        cause = f"{texts['operation']} of {texts.get('path', 'PATH')} failed: {texts.get('reason', 'REASON')}"
    remedy = texts.get("remedy", "")
    if (
        of is None
        or cause == "..."
        or (module.name.startswith("setup") and cause.isupper())
        or any(text.startswith(name.upper()) for name, text in texts.items() if name in TOLD)
    ):
        return None
    return Row(of, cause, remedy)


def _group(call: Call, module: Module) -> str | None:
    if call.target in ERRORS:
        return call.target
    if call.target == "Race":
        return "times"
    if call.target == FOUND:
        return f"finding {call.kind}"
    if call.target == "Problem":
        return "quorum"
    for (carrier, folder), error in CARRIERS.items():
        if call.target == carrier and module.name.startswith(folder):
            return error
    return f"verdict {call.kind}" if call.kind else None


def page(found: list[Row]) -> str:
    parts = [HEAD, "\n## Verdicts on a storage\n", VERDICTS]
    for kind in Kind:
        parts += _table(f"`{kind.value}`", f"verdict {kind.name}", found, columns=("cause", "what to do"))
    parts += ["\n## Why fencing cannot decide\n", FENCING]
    parts += _table("Votes", "quorum", found, columns=("cause", "what to do"))
    parts += _table("Times that do not fit", "times", found, columns=("what must be so", "what to do"))
    parts += ["\n## What `pvedrbdstor doctor` finds\n", DOCTOR, *_findings(found)]
    parts += ["\n## Why `pvedrbdstor setup plan` refuses\n", SETUP]
    parts += _lines("setup", found, columns=("cause", "what to do"))
    parts += ["\n## Errors\n", ERROR_HEAD]
    for numbers, title in AREAS:
        of_area = [cls for cls in ERRORS.values() if cls.code in numbers]
        if of_area:
            parts.append(f"\n### {title}\n")
        for cls in sorted(of_area, key=lambda cls: cls.code):
            parts += _error(cls, found)
    return "\n".join(parts).replace("\n\n\n", "\n\n").rstrip() + "\n"


VERDICTS = """Told by `pvedrbdstor mirror status`, the journal of `pvedrbdstor.service` and Proxmox's notifications, the gravest first. What each
verdict means for guests: [verdicts.md](verdicts.md).
"""
FENCING = """Told by `pvedrbdstor fencing status`, `pvedrbdstor fencing timeline`, and as `unprotected` or `degraded` by `mirror status`. What is
behind them: [fencing.md](fencing.md).
"""
DOCTOR = """What each means is in [doctor.md](doctor.md), and in what the program prints. The findings `mirror-...` are the verdicts above, told of both nodes.
"""
SETUP = """Everything that is in the way is told at once, and nothing is changed. What `setup apply` stops at is below, `SetupRefused` and `SetupStepFailed`. Why:
[setup.md](setup.md).
"""
ERROR_HEAD = """Each has a stable number (in `--json`, and on the wire) and an exit status. Where one frame has several causes, they are listed below it.
"""


def _findings(found: list[Row]) -> list[str]:
    """In the order of the catalogue. The kernel's faults are a table of the code, and no calls."""
    faults = [Row(f"finding {f.entry.id}", f.entry.finds, f.remedy.format(storage="STORAGE")) for f in KERNEL_FAULTS]
    lines = [
        f"| `{entry.id}` | {_cell(row.cause)} | {_cell(row.remedy)} |"
        for entry in CATALOGUE
        for row in (*found, *faults)
        if row.of == f"finding {entry.id}"
    ]
    return ["| id | found | what to do |", "|---|---|---|", *lines, ""]


def _table(title: str, of: str, found: list[Row], columns: tuple[str, str]) -> list[str]:
    lines = _lines(of, found, columns)
    return [f"\n### {title}\n", *lines] if lines else []


def _lines(of: str, found: list[Row], columns: tuple[str, str]) -> list[str]:
    lines = [f"| {_cell(row.cause)} | {_cell(row.remedy)} |" for row in found if row.of == of]
    return [f"| {columns[0]} | {columns[1]} |", "|---|---|", *lines, ""] if lines else []


def _error(cls: type[errors.Error], found: list[Row]) -> list[str]:
    frame = _cell(re.sub(r"\{(\w+)\}", lambda match: match[1].upper(), cls.__doc__ or ""))
    lines = [f"**{cls.__name__}** ({cls.code}, exit status {cls.exit_status}): {frame}\n"]
    mine = [row for row in found if row.of == cls.__name__]
    if any(row.cause and row.remedy for row in mine):
        lines += ["| cause | what to do |", "|---|---|"]
        lines += [f"| {_cell(row.cause)} | {_cell(row.remedy)} |" for row in mine] + [""]
    elif mine:
        lines += [f"- {_cell(row.cause or row.remedy)}" for row in mine] + [""]
    return lines


def _cell(text: str) -> str:
    """As Markdown shows it unchanged."""
    return re.sub(r"([\\`*_{}\[\]<>|$])", r"\\\1", " ".join(text.split()))


def made() -> str:
    """The page as it is to be."""
    return page(rows(modules(ROOT / "pvedrbdstor")))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(made())
    else:
        print(made(), end="")
