"""Adding a storage: the entry in the menu, the dialog, and what is sent."""

from __future__ import annotations

import pytest

from tests.browser.page import OURS, Page
from tests.browser.site import State

pytestmark = pytest.mark.parametrize("release", [8, 9])

LEAST = [
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


@pytest.fixture(autouse=True)
def opened(release: int, state: State, page: Page) -> None:
    state.release = release
    page.open()


def sent(state: State) -> list[tuple[str, str]]:
    """The parameters of the one request that was made, which is the one that adds a storage."""
    (request,) = state.requests
    assert (request.method, request.path) == ("POST", "/api2/extjs/storage")
    return sorted(request.parameters)


def fill_in_the_least(page: Page) -> None:
    page.add()
    page.type("storage", "ha-store")
    page.type("drbdocfs2-resource", "r0")


def test_the_type_is_in_the_add_menu_beside_the_others(page: Page) -> None:
    assert page.menu() == ["Directory", "LVM", OURS]


def test_the_least_a_user_fills_in_is_sent_as_the_plugin_takes_it(state: State, page: Page) -> None:
    fill_in_the_least(page)
    assert page.title() == f"Add: {OURS}"
    page.submit()
    assert sent(state) == sorted(LEAST)


def test_everything_a_user_fills_in_is_sent(state: State, page: Page) -> None:
    page.add()
    page.type("storage", "ha-store")
    page.type("drbdocfs2-resource", "vm.data_1")
    page.type("path", "/srv/mirror")
    page.choose("content", "images", "backup", "import")
    page.choose("nodes", "pve1", "pve2")
    page.tick("enable", False)
    page.show_advanced()
    page.type("drbdocfs2-volume", "7")
    page.type("drbdocfs2-uuid", "0123456789ABCDEF0123456789ABCDEF")
    page.choose("preallocation", "full")
    page.choose("format", "qcow2")
    page.show_tab("Backup Retention")
    page.tick("keep-all", False)
    page.type("keep-last", "3")
    page.type("max-protected-backups", "2")
    page.submit()
    assert sent(state) == sorted(
        [
            ("storage", "ha-store"),
            ("type", "drbdocfs2"),
            ("drbdocfs2-resource", "vm.data_1"),
            ("drbdocfs2-volume", "7"),
            ("drbdocfs2-uuid", "0123456789ABCDEF0123456789ABCDEF"),
            ("path", "/srv/mirror"),
            ("content", "images"),
            ("content", "backup"),
            ("content", "import"),
            ("nodes", "pve1"),
            ("nodes", "pve2"),
            ("disable", "1"),
            ("preallocation", "full"),
            ("format", "qcow2"),
            ("prune-backups", "keep-last=3"),
            ("max-protected-backups", "2"),
        ]
    )


def test_what_is_typed_untidily_is_sent_tidy(state: State, page: Page) -> None:
    page.add()
    page.type("storage", "ha-store")
    page.type("drbdocfs2-resource", " r0 ")
    page.type("path", " /mnt/pve/ha ")
    page.show_advanced()
    page.type("drbdocfs2-uuid", "01234567-89ab-cdef-0123-456789abcdef")
    page.submit()
    expected = dict(LEAST) | {"path": "/mnt/pve/ha", "drbdocfs2-uuid": "0123456789ABCDEF0123456789ABCDEF"}
    body = dict(sent(state))
    assert {key: body.get(key) for key in expected} == expected | {"content": body["content"]}


def test_preallocation_is_not_sent_for_a_storage_without_disk_images(state: State, page: Page) -> None:
    fill_in_the_least(page)
    page.show_advanced()
    page.choose("preallocation", "off")
    page.choose("content", "backup", "iso")
    page.submit()
    body = sent(state)
    assert [value for key, value in body if key == "content"] == ["backup", "iso"]
    assert "preallocation" not in dict(body)


def test_the_path_follows_the_id_until_the_user_writes_one(page: Page) -> None:
    page.add()
    page.type("storage", "one")
    page.wait_for("return field('path').getValue() === '/mnt/pve/one'")
    page.type("storage", "other")
    page.wait_for("return field('path').getValue() === '/mnt/pve/other'")
    page.type("path", "/srv/mirror")
    page.type("storage", "third")
    assert page.value("path") == "/srv/mirror"


def test_a_refusal_of_the_plugin_is_shown_word_for_word_and_loses_nothing(state: State, page: Page) -> None:
    text = (
        "create storage failed: error during cfs-locked 'file-storage_cfg' operation: storage 'ha-store': storage"
        " 'other' already lies on DRBD resource 'r0' volume 0. Use that one, or another path and resource <b>&amp;</b>"
    )
    fill_in_the_least(page)
    state.refuse(text)
    assert page.submit_refused() == f"{text} (500)"
    page.accept_message()
    assert (page.value("storage"), page.value("drbdocfs2-resource")) == ("ha-store", "r0")
    state.requests.clear()
    state.refusal = None
    page.type("drbdocfs2-resource", "r1")
    page.submit()
    assert ("drbdocfs2-resource", "r1") in sent(state)


def test_a_parameter_the_api_refuses_is_marked_with_its_reason(state: State, page: Page) -> None:
    reason = "value does not match the regex pattern"
    fill_in_the_least(page)
    state.refuse("Parameter verification failed.", **{"drbdocfs2-resource": reason})
    assert reason in page.submit_refused()
    page.accept_message()
    assert page.complaints("drbdocfs2-resource") == [reason]
