"""Whatever is wrong with our script, the rest of the GUI works: it is loaded on a page that forty guests depend on."""

from __future__ import annotations

import pytest

from tests.browser.page import OURS, Page
from tests.browser.site import OURS as SCRIPT
from tests.browser.site import State

OTHERS = ["Directory", "LVM"]
TEXT = SCRIPT.read_text()
BROKEN = {
    "a throw at its begin": f"throw new Error('broken on purpose');\n{TEXT}",
    "a syntax error": f"{TEXT}\n}}",
    "half of it, as a full disk leaves it": TEXT[: len(TEXT) // 2],
    "no such file": None,
    "nothing in it": "",
}
MISSING = {
    "the panel it extends": "Ext.undefine('PVE.panel.StorageBase')",
    "one of its fields": "Ext.undefine('Proxmox.form.field.Textfield')",
    "the translations": "delete window.gettext",
    "Ext's way to define a class": "{ const define = Ext.define; delete Ext.define;"
    " window.addEventListener('DOMContentLoaded', () => { Ext.define = define; }) }",
}


def works_for_others(state: State, page: Page) -> None:
    """A storage of another type can be added and edited."""
    page.add("Directory")
    page.type("storage", "local-two")
    page.type("path", "/srv")
    page.submit()
    (request,) = state.requests
    assert (request["type"], request["storage"], request["path"]) == (["dir"], ["local-two"], ["/srv"])
    page.edit("local")
    assert page.title() == "Edit: Directory"


@pytest.fixture(autouse=True)
def local(state: State) -> None:
    state.storages["local"] = {"type": "dir", "path": "/var/lib/vz", "content": "iso"}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_script_of_ours_leaves_the_page_alive(what: str, state: State, closed_page: Page) -> None:
    state.ours = BROKEN[what]
    closed_page.open()
    assert closed_page.menu() == OTHERS
    assert len(closed_page.errors()) == (0 if state.ours == "" else 1)
    works_for_others(state, closed_page)


@pytest.mark.parametrize("place", ["me.column1 = basicFields", "me.callParent();"])
def test_a_throw_while_our_dialog_opens_leaves_the_others_working(place: str, state: State, closed_page: Page) -> None:
    assert place in TEXT
    state.ours = TEXT.replace(place, f"throw new Error('broken on purpose'); {place}")
    closed_page.open()
    assert closed_page.menu() == [*OTHERS, OURS]
    closed_page.choose_entry(OURS)
    closed_page.wait_for("return window.pageErrors.some((text) => text.includes('broken on purpose'))")
    works_for_others(state, closed_page)


@pytest.mark.parametrize("what", MISSING)
def test_where_proxmox_lacks_what_it_needs_it_stands_down(what: str, state: State, page: Page) -> None:
    state.before_ours = MISSING[what]
    page.open()
    assert page.menu() == OTHERS
    works_for_others(state, page)


def test_where_proxmox_knows_the_type_its_own_dialog_is_kept(state: State, page: Page) -> None:
    state.before_ours = "PVE.Utils.storageSchema.drbdocfs2 = { name: 'theirs', ipanel: 'DirInputPanel', faIcon: 'folder', backups: true }"
    page.open()
    assert page.menu() == [*OTHERS, "theirs"]
    assert not page.js("return !!Ext.ClassManager.get('PVE.storage.DRBDOCFS2InputPanel')")
    works_for_others(state, page)


def test_loaded_twice_it_is_in_the_menu_once(state: State, page: Page) -> None:
    state.script_line *= 2
    page.open()
    assert page.menu() == [*OTHERS, OURS]
