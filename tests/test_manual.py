"""The manual builds without a warning, every page and link of it can be reached, and what is made from the code is of this code."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import click
import pytest

from pvedrbdstor.cli.app import app
from pvedrbdstor.doctor.checks import CATALOGUE

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
MAN = (DOCS / "man" / "pvedrbdstor.8.md").read_text()


def sphinx(builder: str, folder: Path, *options: str) -> Path:
    """Build the manual; fails on any warning."""
    command = ["sphinx-build", "-q", "-W", "--keep-going", "-n", "-b", builder, *options]
    command += ["-d", str(folder / "doctrees"), str(DOCS), str(folder / builder)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (built.returncode, built.stderr) == (0, "")
    return folder / builder


@pytest.fixture(scope="module")
def for_people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sphinx("html", tmp_path_factory.mktemp("manual"))


@pytest.fixture(scope="module")
def for_the_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sphinx("html", tmp_path_factory.mktemp("package"), "-t", "package")


@pytest.fixture(params=["for_people", "for_the_package"])
def html(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


@pytest.fixture(scope="module")
def man(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sphinx("man", tmp_path_factory.mktemp("man"))


class Page(HTMLParser):
    """ids: of the places in it. links: what one can click on. loads: what a browser fetches to show it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids.add(found.get("id", ""))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif "src" in found or tag == "link":
            self.loads.append(found.get("src") or found.get("href", ""))


def pages_of(folder: Path) -> dict[Path, Page]:
    made_by_sphinx = ("search.html", "genindex.html")
    return {path: Page(path) for path in folder.rglob("*.html") if path.name not in made_by_sphinx}


def target_of(page: Path, link: str) -> tuple[Path, str]:
    path, _, place = unquote(link).partition("#")
    return ((page.parent / path).resolve() if path else page), place


def test_every_page_can_be_reached_from_the_first(html: Path) -> None:
    pages = pages_of(html)
    reached, todo = set(), [html / "index.html"]
    while todo:
        page = todo.pop()
        if page in reached or page not in pages:
            continue
        reached.add(page)
        todo += [target_of(page, link)[0] for link in pages[page].links]
    assert {path.relative_to(html) for path in pages.keys() - reached} == set()
    written = {path.relative_to(DOCS).with_suffix("") for path in DOCS.rglob("*.md")}
    assert {Path(str(path.relative_to(html)).removesuffix(".html")) for path in pages} == written


def test_every_relative_link_leads_somewhere(html: Path) -> None:
    pages = pages_of(html)
    broken = []
    for path, page in pages.items():
        for link in (*page.links, *page.loads):
            if re.match(r"[a-z]+:", link):
                continue
            target, place = target_of(path, link)
            if not target.is_file() or (place and target in pages and place not in pages[target].ids):
                broken.append(f"{path.name}: {link}")
    assert broken == []


def test_nothing_is_fetched_from_the_net(html: Path) -> None:
    loads = [f"{path.name}: {load}" for path, page in pages_of(html).items() for load in page.loads]
    assert [load for load in loads if "//" in load] == []
    sheets = [path for path in html.rglob("*.css") if re.search(r"(url\(|@import)\W*(https?:)?//", path.read_text())]
    assert sheets == []


def test_the_pages_for_the_package_have_no_scripts(for_the_package: Path) -> None:
    assert [path.name for path in pages_of(for_the_package) if "<script" in path.read_text()] == []


@pytest.mark.parametrize("name", ["pvedrbdstor.8", "drbdocfs2.7"])
def test_a_man_page_is_shown_without_a_complaint(man: Path, name: str) -> None:
    page = man / name
    shown = subprocess.run(
        ["groff", "-t", "-man", "-ww", "-Tutf8", "-rLL=100n", str(page)], capture_output=True, text=True, timeout=60
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    text = re.sub("\x1b\\[[0-9;]*m|.\x08", "", shown.stdout)
    assert re.search(rf"^NAME\n +{name[:-2]} - [a-zA-Z]", text, re.MULTILINE)
    assert all(re.search(rf"^{title}$", text, re.MULTILINE) for title in ("SYNOPSIS", "DESCRIPTION", "SEE ALSO"))
    assert ".. " not in text.replace("...", "")
    assert "**" not in text


def commands(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, list[str]]]:
    """Every command that is not hidden, with its own options."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        children = [(name, command.get_command(context, name)) for name in command.list_commands(context)]
        return [found for name, child in children if child is not None for found in commands(child, (*path, name))]
    own = [param for param in command.params if isinstance(param, click.Option) and not param.hidden]
    options = [name for param in own for name in (*param.opts, *param.secondary_opts) if name[1] == "-"]
    return [] if command.hidden else [(" ".join(path), options)]


def entries(command: str) -> str:
    """What the man page says of a command: each definition that begins with its name."""
    found = re.findall(
        rf"^\*\*{re.escape(command)}\*\*.*\n(?:(?!\*\*|## ).*\n)*", MAN.replace("\\-", "-"), re.MULTILINE
    )
    return "\n".join(found)


@pytest.mark.parametrize(
    ("command", "options"), commands(app), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_man_page_has_every_command_with_its_options(command: str, options: list[str]) -> None:
    text = entries(command)
    assert text, "there is no entry for this command"
    missing = [option for option in options if option != "--json" and not re.search(rf"{option}\b", text)]
    assert missing == []


def test_the_man_page_has_no_option_that_does_not_exist() -> None:
    exist = {option for _, options in commands(app) for option in options} | {"--help", "--version"}
    written = set(re.findall(r"--[a-z][a-z-]+", MAN.replace("\\-", "-")))
    assert written - exist == set()


def test_the_man_page_has_every_unit_of_the_package() -> None:
    kinds = (".service", ".socket", ".timer")
    units = [path.name for path in (ROOT / "debian").iterdir() if path.suffix in kinds]
    written = MAN.partition("## UNITS")[2].replace("**_STORAGE_**", "")
    assert len(units) > 5
    assert [unit for unit in units if f"**{unit}**" not in written] == []


def blocks_of(text: str) -> list[str]:
    return re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_translation_has_every_block_of_the_guide_unchanged() -> None:
    guide = (DOCS / "install.md").read_text().partition("\n## Upgrading")[0]
    translated = (DOCS / "pt" / "primeiros-passos.md").read_text()
    assert blocks_of(translated) == blocks_of(guide)
    steps = [re.findall(r"^## (\d)\. ", text, re.MULTILINE) for text in (guide, translated)]
    pictures = [re.findall(r"images/[\w-]+\.png", text) for text in (guide, translated)]
    assert (steps[1], pictures[1]) == (steps[0], pictures[0])


def test_every_command_that_a_page_names_exists() -> None:
    known: dict[str, set[str]] = {}
    for path, _ in commands(app):
        group, _, name = path.partition(" ")
        known.setdefault(group, set()).add(name.partition(" ")[0])
    groups = {group for group, names in known.items() if names != {""}}
    called = {
        (page.name, group, name)
        for page in DOCS.rglob("*.md")
        for group, name in re.findall(r"\bpvedrbdstor ([a-z-]+) ([a-z][a-z-]*)", page.read_text())
        if group in groups
    }
    assert len(called) > 50
    assert [call for call in sorted(called) if call[2] not in known[call[1]]] == []


def test_every_error_is_on_the_page_of_messages() -> None:
    page = (DOCS / "messages.md").read_text()
    assert [name for name in tool("messages").ERRORS if f"**{name}** (" not in page] == []


def test_every_finding_of_the_doctor_is_on_the_page_of_messages_with_what_helps() -> None:
    """Those of the verdicts are told there as verdicts."""
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.+?) \| (.+) \|$", (DOCS / "messages.md").read_text(), re.MULTILINE)
    told = {id_ for id_, _, remedy in rows if len(remedy) > len("Run it")}
    assert {entry.id for entry in CATALOGUE if not entry.id.startswith("mirror-")} - told == set()


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_of_messages_is_made_from_this_code() -> None:
    assert (DOCS / "messages.md").read_text() == tool("messages").made(), "renew it: ./dev docs"
