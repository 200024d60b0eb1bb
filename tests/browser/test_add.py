"""Adding a storage: the entry in the menu, the dialog, and what is sent."""

from __future__ import annotations

import pytest

from tests.browser.page import OURS, Page
from tests.browser.site import State

pytestmark = pytest.mark.parametrize("release", [8, 9])


@pytest.fixture(autouse=True)
def opened(release: int, state: State, page: Page) -> None:
    state.release = release
    page.open()


def test_the_type_is_in_the_add_menu_beside_the_others(page: Page) -> None:
    assert page.menu() == ["Directory", "LVM", OURS]


def test_the_least_a_user_fills_in_is_sent_as_the_plugin_takes_it(state: State, page: Page) -> None:
    page.add()
    assert page.title() == f"Add: {OURS}"
    page.type("storage", "ha-store")
    page.type("drbdocfs2-resource", "r0")
    page.submit()
    (request,) = state.requests
    assert (request.method, request.path) == ("POST", "/api2/extjs/storage")
    assert sorted(request.parameters) == sorted(
        [
            ("storage", "ha-store"),
            ("type", "drbdocfs2"),
            ("drbdocfs2-resource", "r0"),
            ("path", "/mnt/pve/ha-store"),
            ("content", "images"),
            ("content", "rootdir"),
            ("nodes", ""),
            ("disable", "0"),
            ("prune-backups", "keep-all=1"),
        ]
    )
