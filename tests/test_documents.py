"""What the documents promise: every link leads somewhere, also in the package, which ships README.md and docs/ as they are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
# [words](target), ![picture](target), and docs/NAME.md by itself in a sentence
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_MENTION = re.compile(r"(?<![\w/(])docs/[\w/-]+\.(?:md|png|svg|json)\b")


def broken_links(document: Path) -> list[str]:
    """The links of a document that lead to no file, each with the document's name."""
    text = document.read_text()
    folder = document.parent
    top = next((parent.parent for parent in document.parents if parent.name == "docs"), folder)
    targets = [folder / link.partition("#")[0] for link in _LINK.findall(text) if not re.match(r"[a-z]+:|#", link)]
    targets += [top / mention for mention in _MENTION.findall(text)]
    return [f"{document.name}: {target.relative_to(top)}" for target in targets if not target.resolve().is_file()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file(document: Path) -> None:
    assert broken_links(document) == []


def test_a_link_to_nowhere_is_found(tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    document.write_text("[a](docs/a.md) ![b](b.png) see docs/c.md, [web](https://example.invalid/x) [here](#top)")
    assert broken_links(document) == ["README.md: docs/a.md", "README.md: b.png", "README.md: docs/c.md"]


def test_the_install_guide_has_every_picture_that_is_made_for_it() -> None:
    made = re.search(r"^GUIDE = (\{.*\})", (ROOT / "tests" / "browser" / "pictures.py").read_text(), re.MULTILINE)
    assert made is not None
    guide = (ROOT / "docs" / "install.md").read_text()
    assert all(f"](images/{name}.png)" in guide for name in ast.literal_eval(made[1]))
