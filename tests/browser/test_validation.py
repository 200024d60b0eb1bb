"""What the dialog refuses by itself, and what it says then. The values are those the plugin is held to as well."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.browser.page import Page
from tests.browser.site import ROOT

AGREED: dict[str, Any] = json.loads((ROOT / "tests" / "gui" / "agreed.json").read_text())["values"]

# By field: what a user may well type by mistake, and what the field says to it.
MISTAKES = {
    "drbdocfs2-resource": {
        "": "Write the resource's name; 'drbdadm sh-resources' lists them.",
        "-r0": "Begin with a letter or a digit.",
        "r0/1": "Use letters, digits and - _ . + only.",
        "all": "Write another name: DRBD's programs take this one for something else.",
        "r" * 129: "Use 128 characters at most.",
    },
    "path": {
        "": "Write where the file system is, or is to be, mounted on every node.",
        "mnt/pve/x": "Write the whole path, beginning with '/'.",
        "/mnt/a b": "Use letters, digits and - _ . @ / only.",
        "/": "Write a folder of its own, not the root folder '/'.",
        "/mnt/../x": "Write the path without '..'.",
    },
    "drbdocfs2-volume": {"70000": "Write a whole number from 0 to 65535, or nothing for volume 0."},
    "drbdocfs2-uuid": {"ABC": "Write the 32 hexadecimal digits that 'mounted.ocfs2 -d' shows, or nothing."},
}


@pytest.fixture(autouse=True)
def filled_in(page: Page) -> None:
    """The dialog with all that it wants."""
    page.open()
    page.add()
    page.type("storage", "ha-store")
    page.type("drbdocfs2-resource", "r0")
    page.wait_until_submittable()


@pytest.mark.parametrize("name", ["storage", "drbdocfs2-resource", "path"])
def test_a_required_field_left_empty_is_marked_and_bars_the_button(name: str, page: Page) -> None:
    page.type(name, "")
    page.wait_until_submittable(False)
    assert page.wait_for_complaints(name)
    assert not page.complaints("storage" if name == "drbdocfs2-resource" else "drbdocfs2-resource")


def test_an_empty_choice_of_contents_is_marked_and_bars_the_button(page: Page) -> None:
    page.choose("content")
    page.wait_until_submittable(False)
    assert page.wait_for_complaints("content")


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_answered_with_what_to_write_instead(name: str, page: Page) -> None:
    page.show_advanced()
    for text, answer in MISTAKES[name].items():
        page.type(name, text)
        page.wait_until_submittable(False)
        assert page.wait_for_complaints(name) == [answer], text
        assert page.hover(name) == [answer]
    page.type(name, AGREED[name]["good"][0])
    page.wait_until_submittable()
    assert page.complaints(name) == []


@pytest.mark.parametrize("name", AGREED)
def test_the_dialog_takes_and_refuses_what_the_plugin_does(name: str, page: Page) -> None:
    page.show_advanced()
    # a box of one line has no line breaks
    bad = [text for text in AGREED[name]["bad"] if "\n" not in text]
    assert [text for text in bad if not page.judge(name, text)] == []
    good = [*AGREED[name]["good"], *AGREED[name]["typed"]]
    assert [text for text in good if page.judge(name, text)] == []


def test_a_mistake_in_a_hidden_advanced_field_is_brought_to_light(page: Page) -> None:
    page.show_advanced()
    page.click_on("dialog().down('#advancedcb').inputEl.dom")
    page.wait_for("return !dialog().down('#advancedContainer').isVisible()")
    page.judge("drbdocfs2-uuid", "ABC")
    page.wait_for("return dialog().down('#advancedContainer').isVisible()")
    page.wait_until_submittable(False)
