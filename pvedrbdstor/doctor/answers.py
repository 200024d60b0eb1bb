"""What sources have told, and why others told nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pvedrbdstor.errors import CommandFailed, CommandTimeout, Error

_TEXT_MAX = 1 << 20


class Answers:
    """values: source -> JSON value. unread: source -> why not, one clause."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}
        self.unread: dict[str, str] = {}

    def take(self, name: str, ask: Callable[[], object]) -> None:
        """Ask one source; whatever it fails by, a bug too, is its reason, and costs no other source."""
        try:
            self.values[name] = ask()
        except Exception as error:
            self.unread[name] = reason_of(error)

    def as_json(self, **others: object) -> dict[str, object]:
        """For the channel of a Helper. others: more values."""
        return {"values": {**others, **self.values}, "unread": self.unread}

    def merge(self, answer: object, names: Sequence[str], silence: str) -> None:
        """Take a Helper's answer in. names: what it was asked for; what it does not tell has the reason ``silence``, or the Helper's error."""
        found = answer if isinstance(answer, dict) else {}
        values, unread = found.get("values"), found.get("unread")
        error = found.get("error")
        self.values.update(values if isinstance(values, dict) else {})
        self.unread.update(unread if isinstance(unread, dict) else {})
        for name in names:
            if name not in self.values and name not in self.unread:
                self.unread[name] = error if isinstance(error, str) else silence


def reason_of(error: Exception) -> str:
    """One clause, of what was said last where a program failed."""
    if isinstance(error, CommandTimeout):
        return f"'{error.fields['command']}' did not answer in time"
    if isinstance(error, CommandFailed):
        said = str(error.fields["output"]).strip().splitlines()
        return f"'{error.fields['command']}' failed: {(said or ['it said nothing'])[-1].strip().rstrip('.')}"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        return f"{where}{error.strerror or error}"
    text = str(error).rstrip(".")
    return text if isinstance(error, Error | ValueError) else f"{type(error).__name__}: {text}"


def text_of(path: str, limit: int = _TEXT_MAX) -> str | None:
    """A file's text; None where there is none. Raises OSError."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(limit)
    except FileNotFoundError:
        return None
