"""What the commands print: tables and sentences for people, or one JSON document for machines; errors likewise."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import click

from pvedrbdstor.sizes import format_size

NOTHING = "-"


@dataclass(frozen=True)
class Column:
    """A column of a table; numbers and sizes are aligned to the right."""

    title: str
    right: bool = False


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """The rows under their titles, each column as wide as its widest cell; ends with a newline."""
    lines = [[column.title for column in columns], *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    return "".join(_line(columns, widths, line) for line in lines)


def _line(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str]) -> str:
    padded = (
        cell.rjust(width) if column.right else cell.ljust(width)
        for column, width, cell in zip(columns, widths, cells, strict=True)
    )
    return "  ".join(padded).rstrip() + "\n"


def size_cell(size: object) -> str:
    """``size`` bytes for people, or a dash where it is not known."""
    return format_size(size) if isinstance(size, int) else NOTHING


def time_cell(seconds: object) -> str:
    """A moment (seconds since 1970) in local time, or a dash where it is not known."""
    if not isinstance(seconds, int | float):
        return NOTHING
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def text_cell(text: object) -> str:
    """The text, or a dash where there is none."""
    return NOTHING if text is None or text == "" else str(text)


def print_json(document: object) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(document, indent=2))


def say(sentence: str) -> None:
    """Something worth knowing, on standard error, so that standard output stays what was asked for."""
    click.echo(f"pvedrbdstor: {sentence}", err=True)


def print_error(message: str, *, kind: str, code: int, exit_status: int, as_json: bool) -> None:
    """An error on standard error: `pvedrbdstor: message`, or the error object of the wire and the exit status as JSON."""
    if as_json:
        error = {"code": code, "kind": kind, "message": message, "exit_status": exit_status}
        click.echo(json.dumps({"error": error}), err=True)
    else:
        say(message)
