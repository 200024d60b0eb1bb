"""Every command line of ours that is printed anywhere can be typed: the command exists, with these options and arguments."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pvedrbdstor.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^```.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
OF_DRBD = ("dont-care", "resource-and-stonith", "resource-only")
"""Behind "fencing", which is a command of ours and an option of DRBD's."""
SENTENCES = ("pvedrbdstor is ",)
"""Begin with the name of the program, and are about it."""
NAMES = set(app.list_commands(click.Context(app)))


def complaint(words: list[str], whole: bool) -> str | None:
    """What the program would say to these words behind its name; not ``whole``: arguments may be missing.

    Words in capitals are placeholders and stand for a value of any type.
    """
    command: click.Command = app
    context = click.Context(app, info_name="pvedrbdstor")
    while isinstance(command, click.Group):
        if words[:1] in (["--version"], ["--help"]):
            return None
        _, words, _ = command.make_parser(context).parse_args(list(words))
        if not words:
            return "a command is missing" if whole else None
        child = command.get_command(context, words[0])
        if child is None:
            return f"there is no command {words[0]!r}"
        command, context, words = child, click.Context(child, parent=context, info_name=words[0]), words[1:]
    try:
        values, surplus, _ = command.make_parser(context).parse_args(list(words))
        if surplus:
            return f"there are words too many: {surplus}"
        for parameter in command.params:
            value = values.get(parameter.name or "")
            if whole and isinstance(parameter, click.Argument) and parameter.required and value in (None, ()):
                return f"{parameter.name} is missing"
            if isinstance(value, str) and isinstance(parameter.type, click.Choice) and not value.isupper():
                parameter.type.convert(value, parameter, context)
    except click.BadOptionUsage as error:
        return error.format_message() if whole or not error.message.endswith("requires an argument.") else None
    except click.UsageError as error:
        return error.format_message()
    return None


def printed(text: str) -> Iterator[tuple[str, bool]]:
    """Each line of a block, which is to be typed as it is; and each piece of code within a sentence, which may leave arguments out."""
    text = text.replace("\\-", "-")
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            yield re.sub(r"^\w*# (?=\S)", "", line), True
    outside = BLOCK.sub("", text)
    for piece in (*re.findall(r"`([^`]+)`", outside), *re.findall(r"'(pvedrbdstor [^']+)'", outside)):
        yield " ".join(piece.split()), False


def calls(line: str) -> Iterator[list[str]]:
    """The words behind `pvedrbdstor`, for each call of it in a line of the shell; a comment begins with #."""
    if "pvedrbdstor " not in line:
        return
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in (*lexer, ";"):
        if not set(word) <= set("();<>|&"):
            words.append(word)
        else:
            if words[:1] == ["pvedrbdstor"] and len(words) > 1:
                yield words[1:]
            words = []


def usages(piece: str) -> list[list[str]]:
    """Of `verify ha [--wait] [--mode a|b]`, as pages write it without the program's name, words to type: each with its first choices, and its last."""
    piece = re.sub(r"[\[\]]|\.\.\.", " ", piece.replace("\\|", "|"))
    words = re.sub(r" [<>] \w+", "", piece).split()
    return [[word.split("|")[at] for word in words] for at in (0, -1)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_line_that_is_printed_can_be_typed(page: Path) -> None:
    wrong = []
    for line, whole in printed(page.read_text()):
        try:
            for words in calls(line):
                if (why := complaint(words, whole)) is not None:
                    wrong.append(f"{line}: {why}")
        except ValueError as error:
            wrong.append(f"{line}: {error}")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_that_is_named_without_the_program_exists_like_that(page: Path) -> None:
    wrong = []
    for piece, whole in printed(page.read_text()):
        first, last = usages(piece)
        if whole or len(first) < 2 or first[0] not in NAMES or first[1].rstrip(";\\") in OF_DRBD:
            continue
        if (why := complaint(first, whole=False)) is not None and complaint(last, whole=False) is not None:
            wrong.append(f"{piece}: {why}")
    assert wrong == []


def said(tree: ast.AST) -> Iterator[str]:
    """Each text in the code, with X for what is filled in."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        else:
            yield from said(node)


def named(text: str) -> list[str]:
    """Command lines of ours: all of a text, or what is quoted in it."""
    quoted = [
        line
        for pair in re.findall(r"'(pvedrbdstor [a-z-][^']*)'|`(pvedrbdstor [a-z-][^`]*)`", text)
        for line in pair
        if line
    ]
    alone = [text] if re.match(r"pvedrbdstor [a-z-]+ [^\n]*$", text) and not text.startswith(SENTENCES) else []
    return [line.replace("{{ ", "").replace(" }}", "").replace("...", " ") for line in (*quoted, *alone)]


def test_every_command_line_that_the_program_says_exists() -> None:
    wrong, seen = [], 0
    for file in sorted((ROOT / "pvedrbdstor").rglob("*.py")):
        for text in said(ast.parse(file.read_text())):
            for line in named(text):
                for words in calls_or_none(line):
                    seen += 1
                    if (why := complaint(words, whole=False)) is not None:
                        wrong.append(f"{file.relative_to(ROOT)}: {line}: {why}")
    assert wrong == []
    assert seen > 100


def test_the_look_for_command_lines_finds_them_and_what_is_wrong_with_them() -> None:
    found = [words for page in PAGES for line, _ in printed(page.read_text()) for words in calls_or_none(line)]
    assert len(found) > 150
    assert complaint(["space", "ha", "--sort", "frees"], whole=True) is None
    for words in (
        ["snapshot", "rollback"],
        ["space", "ha", "all", "guests"],
        ["space", "ha", "--sort", "name"],
        ["space", "ha", "--guests", "100"],
        ["mirror", "adopt"],
        ["mirror"],
    ):
        assert complaint(words, whole=True) is not None


def calls_or_none(line: str) -> list[list[str]]:
    try:
        return list(calls(line))
    except ValueError:
        return []
