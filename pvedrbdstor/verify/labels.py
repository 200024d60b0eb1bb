"""Names that a guest or a stranger has chosen, made fit for a terminal and a log. Pure."""

from __future__ import annotations

_LABEL_MAX = 36
_PATH_MAX = 400


def label(raw: bytes | str, encoding: str = "utf-8") -> str:
    """A label of a partition or a file system: up to the first NUL, without what is not printable, bounded."""
    text = raw.decode(encoding, "replace") if isinstance(raw, bytes) else raw
    return _printable(text.partition("\0")[0].strip(), _LABEL_MAX).replace('"', "'")


def path(text: str) -> str:
    """The path of a file: control and direction characters, and bytes that are no text, become '?'."""
    return _printable(text, _PATH_MAX)


def _printable(text: str, most: int) -> str:
    shown = "".join(
        character if character.isprintable() and character != "\ufffd" else "?" for character in text[:most]
    )
    return shown + ("..." if len(text) > most else "")
