"""Editing a storage: what is shown, what cannot be changed, and what is sent and deleted."""

from __future__ import annotations

import pytest

from tests.browser.page import OURS, Page
from tests.browser.site import DIGEST, Request, State

pytestmark = pytest.mark.parametrize("release", [8, 9])

SECTION: dict[str, object] = {
    "type": "drbdocfs2",
    "path": "/mnt/pve/ha-store",
    "drbdocfs2-resource": "r0",
    "drbdocfs2-volume": 3,
    "drbdocfs2-uuid": "0123456789ABCDEF0123456789ABCDEF",
    "content": "images,rootdir",
    "nodes": "pve1,pve2",
    "preallocation": "full",
    "format": "qcow2",
    "shared": 1,
    "prune-backups": "keep-last=3",
    "max-protected-backups": 2,
}
KEPT = {
    "drbdocfs2-resource": ["r0"],
    "drbdocfs2-volume": ["3"],
    "drbdocfs2-uuid": ["0123456789ABCDEF0123456789ABCDEF"],
    "content": ["images", "rootdir"],
    "nodes": ["pve1", "pve2"],
    "preallocation": ["full"],
    "format": ["qcow2"],
    "prune-backups": ["keep-last=3"],
    "max-protected-backups": ["2"],
    "disable": ["0"],
    "digest": [DIGEST],
}


def edit(state: State, page: Page, release: int, **changed: object) -> None:
    """Open the dialog of a storage with this section; None takes a key away."""
    state.release = release
    section = SECTION | {key.replace("_", "-"): value for key, value in changed.items()}
    state.storages["ha-store"] = {key: value for key, value in section.items() if value is not None}
    page.open()
    page.edit("ha-store")


def sent(state: State) -> dict[str, list[str]]:
    """The parameters of the one request that was made, without the order."""
    request: Request
    (request,) = state.requests
    assert (request.method, request.path) == ("PUT", "/api2/extjs/storage/ha-store")
    return {key: request[key] for key in request.keys}


def always_deleted(release: int) -> list[str]:
    """What PVE's own part of the dialog deletes whatever the user does: `maxfiles` in 8."""
    return ["maxfiles"] if release == 8 else []


def test_what_cannot_be_changed_is_shown_as_text(state: State, page: Page, release: int) -> None:
    edit(state, page, release)
    assert page.title() == f"Edit: {OURS}"
    assert {name: page.xtype(name) for name in ("storage", "path")} == {
        "storage": "displayfield",
        "path": "displayfield",
    }
    assert (page.shown("storage"), page.shown("path")) == ("ha-store", "/mnt/pve/ha-store")


def test_every_option_is_shown_as_it_is(state: State, page: Page, release: int) -> None:
    edit(state, page, release)
    shown = {key: page.value(key) for key in SECTION if page.has(key) and key not in ("path",)}
    assert shown == {
        "drbdocfs2-resource": "r0",
        "drbdocfs2-volume": 3,
        "drbdocfs2-uuid": "0123456789ABCDEF0123456789ABCDEF",
        "content": ["images", "rootdir"],
        "nodes": ["pve1", "pve2"],
        "preallocation": "full",
        "format": "qcow2",
        "max-protected-backups": 2,
    }


def test_nothing_can_be_sent_before_something_has_changed(state: State, page: Page, release: int) -> None:
    edit(state, page, release)
    assert not page.may_submit()
    page.type("drbdocfs2-resource", "r1")
    page.wait_until_submittable()
    page.type("drbdocfs2-resource", "r0")
    page.wait_until_submittable(False)


def test_a_change_sends_what_may_change_and_nothing_fixed(state: State, page: Page, release: int) -> None:
    edit(state, page, release)
    page.choose("content", "images", "rootdir", "backup")
    page.tick("enable", False)
    page.submit()
    body = sent(state)
    deleted = [key for key in body.pop("delete") if key]  # PVE 9 sends an empty list along
    body["content"].sort()
    assert body == KEPT | {"content": ["backup", "images", "rootdir"], "disable": ["1"]}
    assert deleted == always_deleted(release)


def test_what_is_emptied_is_deleted(state: State, page: Page, release: int) -> None:
    edit(state, page, release)
    page.show_advanced()
    page.type("drbdocfs2-volume", "")
    page.type("drbdocfs2-uuid", "")
    page.choose("preallocation", "__default__")
    page.choose("format", "__default__")
    page.choose("nodes")
    page.show_tab("Backup Retention")
    page.type("keep-last", "")
    page.type("max-protected-backups", "")
    page.submit()
    body = sent(state)
    gone = ["drbdocfs2-uuid", "drbdocfs2-volume", "format", "max-protected-backups", "preallocation", "prune-backups"]
    assert sorted(body.pop("delete")) == sorted(gone + always_deleted(release))
    assert body == {key: value for key, value in KEPT.items() if key not in gone} | {"nodes": [""]}


def test_a_storage_taken_over_without_a_resource_can_still_be_disabled(state: State, page: Page, release: int) -> None:
    edit(state, page, release, drbdocfs2_resource=None)
    page.tick("enable", False)
    page.submit()
    body = sent(state)
    assert body["disable"] == ["1"]
    assert "drbdocfs2-resource" not in body
    assert "drbdocfs2-resource" not in body.get("delete", [])


def test_the_resource_of_a_storage_that_has_one_cannot_be_emptied(state: State, page: Page, release: int) -> None:
    edit(state, page, release)
    page.type("drbdocfs2-resource", "")
    page.wait_until_submittable(False)
    assert page.wait_for_complaints("drbdocfs2-resource")


def test_a_refused_change_is_shown_and_can_be_sent_again(state: State, page: Page, release: int) -> None:
    text = "update storage failed: detected modified configuration - file changed by other user? Try again."
    edit(state, page, release)
    page.type("drbdocfs2-resource", "r1")
    state.refuse(text)
    assert page.submit_refused() == f"{text} (500)"
    page.accept_message()
    state.requests.clear()
    state.refusal = None
    page.submit()
    assert sent(state)["drbdocfs2-resource"] == ["r1"]


def test_a_path_from_the_configuration_is_text_never_markup(state: State, page: Page, release: int) -> None:
    edit(state, page, release, path="/mnt/<b>x</b>")
    assert page.shown("path") == "/mnt/<b>x</b>"
