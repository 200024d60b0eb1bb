"""Numbers that tests measured: handed over as rows of named tables, made into Markdown by `./dev soak`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

FILE = "LAB_RESULTS"  # the environment variable that names the file to append to


class Results:
    """Where tests put rows. Without the environment variable LAB_RESULTS they are only printed."""

    def row(self, table: str, **cells: object) -> None:
        """One row of ``table``; the cells' names, with blanks for underscores, are its columns."""
        line = json.dumps(
            {"table": table, "cells": {name.replace("_", " "): str(cell) for name, cell in cells.items()}}
        )
        print(line, file=sys.stderr)
        if os.environ.get(FILE):
            with open(os.environ[FILE], "a") as file:
                file.write(f"{line}\n")


def markdown(files: list[Path]) -> str:
    """The tables in ``files``, in the order in which they first appear; a column that a row lacks is empty there."""
    tables: dict[str, list[dict[str, str]]] = {}
    for file in files:
        for line in file.read_text().splitlines() if file.exists() else []:
            row = json.loads(line)
            tables.setdefault(row["table"], []).append(row["cells"])
    return "\n\n".join(_table(title, rows) for title, rows in tables.items())


def _table(title: str, rows: list[dict[str, str]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([row.get(column, "") for column in columns] for row in rows)]
    return "\n".join([f"## {title}", "", *(f"| {' | '.join(line)} |" for line in lines)])
