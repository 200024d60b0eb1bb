"""Proxmox's section configuration, the format of /etc/pve/storage.cfg, as values; a pure parser that never fails.

A section is a line `type: id`, then lines that start with white space and hold `key value`; an empty line ends it and
`#` starts a comment line. What does not fit is passed over, as PVE::SectionConfig's parse_config does (it warns).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_COMMENT = re.compile(r"\s*#", re.ASCII)
_HEADER = re.compile(r"(\S+):\s*(\S+)\s*", re.ASCII)
_PROPERTY = re.compile(r"\s+(\S+)(?:\s+(.*\S))?\s*", re.ASCII)
_SEPARATOR = re.compile(r"[,;\s\0]+", re.ASCII)


@dataclass(frozen=True)
class Section:
    """One section: its type in lower case, its id, and its properties; a property without a value is the empty text."""

    type: str
    id: str
    properties: Mapping[str, str]


def parse(text: str) -> dict[str, Section]:
    """All sections by id. Of a repeated id the last section counts, of a repeated property the first, as in PVE."""
    return {section.id: section for section in _sections(text)}


def split_list(text: str) -> list[str]:
    """The words of a list property, which PVE separates by commas, semicolons or white space (its `split_list`)."""
    return [word for word in _SEPARATOR.split(text) if word]


def is_true(text: str | None) -> bool:
    """PVE's booleans: 1, on, yes and true, and a property that is there without a value."""
    return text is not None and text.lower() in ("", "1", "on", "yes", "true")


def _sections(text: str) -> Iterator[Section]:
    section: Section | None = None
    properties: dict[str, str] = {}
    for line in text.split("\n"):
        if _COMMENT.match(line):
            continue
        if section is None:
            if header := _HEADER.fullmatch(line):
                properties = {}
                section = Section(header[1].lower(), header[2], properties)
                yield section
        elif not line:
            section = None
        elif found := _PROPERTY.fullmatch(line):
            properties.setdefault(found[1], found[2] or "")
