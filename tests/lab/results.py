"""Numbers that tests measured: handed over as rows of named tables, made into Markdown by `./dev soak`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

FILE = "LAB_RESULTS"  # the environment variable that names the file to append to


@dataclass
class Table:
    """rows: column -> cell. key: the columns that say what a row is about; none where only all rows together mean anything."""

    rows: list[dict[str, str]] = field(default_factory=list)
    key: tuple[str, ...] = ()

    def name(self, row: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(row.get(column, "") for column in self.key)


class Results:
    """Where tests put rows. Without the environment variable LAB_RESULTS they are only printed."""

    def row(self, table: str, *, key: tuple[str, ...] = (), **cells: object) -> None:
        """One row of ``table``; the cells' names, with blanks for underscores, are its columns.

        key: the columns by which a row measured anew takes the place of its older self; without any the whole table does.
        """
        columns = {name.replace("_", " "): str(cell) for name, cell in cells.items()}
        line = json.dumps({"table": table, "key": key, "cells": columns})
        print(line, file=sys.stderr)
        if os.environ.get(FILE):
            with open(os.environ[FILE], "a") as file:
                file.write(f"{line}\n")


def read(files: Iterable[Path]) -> dict[str, Table]:
    """The tables in ``files``, in the order in which they first appear."""
    tables: dict[str, Table] = {}
    for file in files:
        for line in file.read_text().splitlines() if file.exists() else []:
            row = json.loads(line)
            table = tables.setdefault(row["table"], Table(key=tuple(row["key"])))
            table.rows.append(row["cells"])
    return tables


def parse(text: str) -> dict[str, Table]:
    """The tables of a page that markdown() has made."""
    tables: dict[str, Table] = {}
    for section in text.split("\n## ")[1:]:
        title, *lines = section.splitlines()
        columns, _, *rows = [line.strip("|").split("|") for line in lines if line.startswith("|")]
        names = [column.strip() for column in columns]
        cells = [dict(zip(names, (cell.strip() for cell in row), strict=True)) for row in rows]
        tables[title] = Table(cells)
    return tables


def merged(old: Mapping[str, Table], new: Mapping[str, Table]) -> dict[str, Table]:
    """The old tables with what was measured anew: rows by their key, else whole tables; what is not in the old ones at the end."""
    tables = dict(old)
    for title, table in new.items():
        if not table.key or title not in tables:
            tables[title] = table
            continue
        fresh = {table.name(row): row for row in table.rows}
        kept = [fresh.pop(table.name(row), row) for row in tables[title].rows]
        tables[title] = Table([*kept, *fresh.values()], table.key)
    return tables


def markdown(tables: Mapping[str, Table]) -> str:
    """All tables; a column that a row lacks is empty there."""
    return "\n\n".join(_table(title, table.rows) for title, table in tables.items())


def _table(title: str, rows: list[dict[str, str]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([row.get(column, "") for column in columns] for row in rows)]
    return "\n".join([f"## {title}", "", *(f"| {' | '.join(line)} |" for line in lines)])
