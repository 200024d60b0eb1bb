"""One server and one browser for all tests; every test has a page and a state of the server of its own."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from selenium.webdriver.remote.webdriver import WebDriver

from tests.browser.chromium import chromium
from tests.browser.page import Page
from tests.browser.site import FOLDERS, Site, State


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    assert (FOLDERS["extjs"] / "ext-all.js").exists(), "ExtJS is missing: './dev test' and './dev browser' fetch it"
    with Site() as site:
        yield site


@pytest.fixture(scope="session")
def browser() -> Iterator[WebDriver]:
    # ended from outside, as for taking too long, nothing is left behind either
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: pytest.exit("ended by SIGTERM", 143))
    with chromium() as browser:
        yield browser
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def state(site: Site) -> State:
    """What the server shows, to be changed before the page is opened, and what it was asked."""
    return site.reset()


@pytest.fixture
def closed_page(site: Site, state: State, browser: WebDriver) -> Iterator[Page]:
    """A page that the test opens itself, and whose errors it judges itself."""
    browser.get("about:blank")
    yield Page(browser, site.url)
    browser.get("about:blank")  # so that no request of this page reaches the next test


@pytest.fixture
def page(closed_page: Page) -> Iterator[Page]:
    """A page that the test opens with ``open()``; an error on it fails the test."""
    yield closed_page
    assert closed_page.errors() == []
