"""The nested text that `drbdsetup show` and `drbdadm dump` print: `name word { option value; }`. No I/O here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*")|(?P<comment>\#[^\n]*)|(?P<mark>[{};])|(?P<word>[^\s{};"#]+)|(?P<broken>")""",
    re.VERBOSE | re.DOTALL,
)


@dataclass
class Block:
    """words: what stands before the brace. options: the first word of each statement and the words after it.

    whole: its closing brace was seen; of a block that is not whole, what is missing cannot be told from a default.
    """

    words: tuple[str, ...]
    options: dict[str, tuple[str, ...]] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    whole: bool = False

    def named(self, name: str) -> Iterator[Block]:
        """The blocks directly inside whose first word is `name`."""
        return (block for block in self.blocks if block.words[:1] == (name,))

    def value(self, option: str) -> str | None:
        """The first word after an option: empty for one without a value, None where it is not there."""
        words = self.options.get(option)
        if words is None:
            return None
        return words[0] if words else ""


def parse(text: str) -> Block:
    """A block without words that holds everything. Whatever fits nowhere is passed over."""
    top = Block(())
    open_blocks = [top]
    words: list[str] = []
    for token in _TOKEN.finditer(text):
        match token.lastgroup, token[0]:
            case "comment", _:
                continue
            case "broken", _:
                return top
            case "mark", "{":
                block = Block(tuple(words))
                open_blocks[-1].blocks.append(block)
                open_blocks.append(block)
            case "mark", "}":
                if len(open_blocks) > 1:
                    open_blocks.pop().whole = True
            case "mark", _:
                if words:
                    open_blocks[-1].options[words[0]] = tuple(words[1:])
            case kind, word:
                words.append(_unquote(word) if kind == "string" else word)
                continue
        words = []
    return top


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
