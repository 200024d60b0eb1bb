"""The manual as a browser shows it from disk: it fits a telephone, it can be read on light and dark pages, its search needs no network."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.remote.webdriver import WebDriver

from tests.browser.colours import COLOURS, CONTRAST
from tests.browser.pictures import ROOT

TELEPHONE, DESK = 390, 1200  # pixels

# Every text of a page, with the contrast to what lies behind it.
READ_CONTRASTS = (
    COLOURS
    + """
return [...document.querySelectorAll('body *')]
    .filter((e) => e.offsetParent && !e.matches('.headerlink, script, style'))
    .map((e) => [e, [...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join('')])
    .filter(([, text]) => text)
    .map(([e, text]) => {
        let [a, b] = [luminance(parse(getComputedStyle(e).color)), luminance(behind(e))];
        return [text.slice(0, 40), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    });
"""
)


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manual")
    command = [
        "sphinx-build",
        "-q",
        "-b",
        "html",
        "-d",
        str(folder / "doctrees"),
        str(ROOT / "docs"),
        str(folder / "html"),
    ]
    subprocess.run(command, check=True, timeout=300)
    return folder / "html"


@pytest.fixture
def reader(browser: WebDriver) -> Iterator[WebDriver]:
    yield browser
    devtools(browser, "Emulation.clearDeviceMetricsOverride")
    devtools(browser, "Emulation.setEmulatedMedia", features=[])
    browser.get("about:blank")


def devtools(browser: WebDriver, command: str, **params: Any) -> None:
    browser.command_executor._commands["devtools"] = ("POST", "/session/$sessionId/goog/cdp/execute")  # type: ignore[union-attr]
    browser.execute("devtools", {"cmd": command, "params": params})


def look(browser: WebDriver, width: int, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    devtools(browser, "Emulation.setEmulatedMedia", features=features)
    mobile = width < 500
    devtools(browser, "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=mobile)


def test_no_page_is_wider_than_a_telephone(manual: Path, reader: WebDriver) -> None:
    look(reader, TELEPHONE, "light")
    wide = {}
    for page in sorted(manual.rglob("*.html")):
        reader.get(page.as_uri())
        width = reader.execute_script("return document.documentElement.scrollWidth")
        if width > TELEPHONE:
            wide[page.name] = width
    assert wide == {}


@pytest.mark.parametrize("width", [TELEPHONE, DESK])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out(manual: Path, reader: WebDriver, scheme: str, width: int) -> None:
    look(reader, width, scheme)
    for page in ("index.html", "concepts.html", "messages.html", "man/pvedrbdstor.8.html", "search.html"):
        reader.get((manual / page).as_uri())
        found = reader.execute_script(READ_CONTRASTS)
        assert len(found) > 20
        assert [(page, *one) for one in found if one[1] < CONTRAST] == []


def test_the_search_finds_a_page_without_a_network(manual: Path, reader: WebDriver) -> None:
    reader.get((manual / "search.html").as_uri() + "?q=resync")
    found = reader.execute_async_script(
        """
        const done = arguments[0];  // Sphinx shows one page after the other, and says at the end how many
        const poll = () => {
            const links = [...document.querySelectorAll('#search-results a')].map((a) => a.href);
            document.querySelector('.search-summary')?.innerText ? done(links) : setTimeout(poll, 50);
        };
        poll();
        """
    )
    assert any("verify.html" in link for link in found)
