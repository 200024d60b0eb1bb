"""Sphinx builds the manual and the man pages from the Markdown files of this folder: `./dev docs`.

The files stay plain Markdown that a forge shows as it is: index.md is a list of links, of which the contents are made here.
With the tag `package` (debian/rules) the pages come without scripts and search: what a server's package has no use for.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent


def _dated() -> str:
    """The day of the last change, as debian/changelog has it: a build's own clock would make each build another one."""
    last = re.findall(r"^ -- .*>  (.+)$", (HERE.parent / "debian" / "changelog").read_text(), re.MULTILINE)[0]
    return datetime.strptime(last, "%a, %d %b %Y %H:%M:%S %z").astimezone(UTC).date().isoformat()


def _version() -> str:
    return re.findall(r'^__version__ = "(.+)"$', (HERE.parent / "pvedrbdstor/__init__.py").read_text(), re.MULTILINE)[0]


packaged = tags.has("package")  # noqa: F821 - Sphinx puts it here
project = "pvedrbdstor"
author = "pvedrbdstor maintainers"
release = _version()
version = f"{project} {release}"
today = _dated()
language = "en"

extensions = ["myst_parser"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_*", "build"]
highlight_language = "none"
nitpicky = True
smartquotes = False  # commands are copied from here

html_title = f"pvedrbdstor {release}"
html_theme = "alabaster"
html_static_path = ["_static"]
templates_path = ["_templates"]
html_css_files = ["manual.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_use_index = False
html_last_updated_fmt = None
html_sidebars = {"**": ["navigation.html"] if packaged else ["navigation.html", "searchbox.html"]}
html_context = {"scripts_wanted": not packaged}
html_theme_options = {"description": "", "fixed_sidebar": False, "show_powered_by": False, "page_width": "72rem"}

man_pages = [
    ("man/pvedrbdstor.8", "pvedrbdstor", "work on drbdocfs2 storages and their disk images", [], 8),
    ("man/drbdocfs2.7", "drbdocfs2", "Proxmox VE storage on OCFS2 on a dual-primary DRBD device", [], 7),
]
man_make_section_directory = False


def _contents(app: Sphinx, docname: str, source: list[str]) -> None:
    """Make toctrees of the lists of links in index.md, one for each heading; pages that it does not name belong to the operation."""
    if docname != "index":
        return
    trees, named = [], set()
    for section in re.split(r"^## ", source[0], flags=re.MULTILINE)[1:]:
        caption, _, text = section.partition("\n")
        pages = re.findall(r"^- .*?\]\(([\w/.-]+)\.md\)", text, re.MULTILINE)
        named.update(pages)
        trees.append((caption, pages))
    dict(trees)["Operation"].extend(sorted(app.env.found_docs - named - {"index"}))
    for caption, pages in trees:
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"


class Mentions(SphinxPostTransform):
    """A page that the text merely names, as `docs/lab.md`, becomes a link to it."""

    default_priority = 20
    formats = ("html",)

    def run(self, **_kwargs: object) -> None:
        for text in list(self.document.findall(nodes.Text)):
            if isinstance(text.parent, nodes.reference | nodes.title | nodes.literal_block):
                continue
            parts: list[nodes.Node] = []
            for index, piece in enumerate(re.split(r"\bdocs/([\w/-]+)\.md\b", str(text))):
                if index % 2 == 0:
                    parts.append(nodes.Text(piece))
                elif piece in self.env.found_docs:
                    title = nodes.Text(self.env.titles[piece].astext())
                    parts.append(make_refnode(self.app.builder, self.env.docname, piece, "", title))
                else:
                    parts.append(nodes.Text(f"docs/{piece}.md"))
            if len(parts) > 1:
                text.parent.replace(text, parts)


def _plain_man(app: Sphinx, failed: Exception | None) -> None:
    """Out of the man pages goes what newer groffs and mandoc complain of: a font that terminals lack, blanks below headings."""
    if failed is not None or app.builder.name != "man":
        return
    for page in man_pages:
        file = Path(app.outdir) / f"{page[1]}.{page[4]}"
        text = re.sub(r"^\.ft [CP]\n", "", file.read_text(), flags=re.MULTILINE)
        file.write_text(re.sub(r"^(\.S[HS] .*\n)\.sp\n", r"\1", text, flags=re.MULTILINE))


def _language(
    _app: Sphinx, page: str, _template: str, context: dict[str, object], _tree: nodes.document | None
) -> None:
    """For the browser: what is read out, hyphenated and offered to be translated."""
    if page.startswith("pt/"):
        context["language"] = "pt-BR"


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _contents)
    app.add_post_transform(Mentions)
    app.connect("html-page-context", _language)
    app.connect("build-finished", _plain_man)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
