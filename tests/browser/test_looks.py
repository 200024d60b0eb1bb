"""How the dialog looks: readable in both themes, nothing cut off; and the pictures of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.browser import pictures
from tests.browser.colours import COLOURS, CONTRAST
from tests.browser.page import Page
from tests.browser.site import State
from tests.browser.test_edit import SECTION

# Every text of our panel with its contrast; what is disabled is pale on purpose.
READ_CONTRASTS = (
    COLOURS
    + """
return [...dialog().ipanel.el.dom.querySelectorAll('*')]
    .filter((e) => e.offsetParent && e.type !== 'checkbox' && !e.closest('.x-item-disabled'))
    .map((e) => [e, e.value || [...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join('')])
    .filter(([, text]) => text)
    .map(([e, text]) => {
        let [a, b] = [luminance(parse(getComputedStyle(e).color)), luminance(behind(e))];
        return [text, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    });
"""
)

# Every text of our panel that does not fit where it stands: a label in two lines, a value or a hint wider than its box.
READ_CUT_OFF = """
const canvas = document.createElement('canvas').getContext('2d');
const wide = (input) => {
    let style = getComputedStyle(input);
    canvas.font = style.font;
    let room = input.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    return canvas.measureText(input.value || input.placeholder).width > room;
};
const panel = dialog().ipanel.el.dom;
const shown = (selector) => [...panel.querySelectorAll(selector)].filter((e) => e.offsetParent && e.type !== 'checkbox');
return [
    ...shown('input').filter(wide).map((e) => e.value || e.placeholder),
    ...shown('.x-form-item-label-text').filter((e) => e.getClientRects().length > 1 || e.offsetHeight > 25)
        .map((e) => e.textContent),
    ...shown('.x-form-display-field').filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.textContent),
];
"""


def empty(page: Page) -> None:
    page.add()


def filled(page: Page) -> None:
    page.add()
    page.type("storage", "ha-store")
    page.type("drbdocfs2-resource", "r0")
    page.choose("nodes", "pve1", "pve2")
    page.wait_until_submittable()


def advanced(page: Page) -> None:
    filled(page)
    page.show_advanced()


def edited(page: Page) -> None:
    page.edit("ha-store")
    page.show_advanced()


VIEWS: dict[str, Callable[[Page], None]] = {
    "gui-add-empty": empty,
    "gui-add": filled,
    "gui-add-advanced": advanced,
    "gui-edit": edited,
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_can_be_read(theme: str, name: str, state: State, page: Page) -> None:
    state.dark = theme == "dark"
    if name == "gui-edit":
        state.storages["ha-store"] = SECTION
    page.open()
    VIEWS[name](page)
    pictures.take(page, name + ("-dark" if state.dark else ""))
    contrasts = page.js(READ_CONTRASTS)
    assert len(contrasts) > 8
    assert [text for text, contrast in contrasts if contrast < CONTRAST] == []
    assert page.js(READ_CUT_OFF) == []


def test_a_mistake_is_explained_where_the_mouse_is(state: State, page: Page) -> None:
    page.open()
    filled(page)
    page.type("path", "mnt/pve/ha-store")
    page.wait_for_complaints("path")
    page.hover("path")
    pictures.take(page, "gui-invalid")


def test_a_refusal_fits_into_its_box(state: State, page: Page) -> None:
    page.open()
    filled(page)
    state.refuse(
        "create storage failed: error during cfs-locked 'file-storage_cfg' operation: storage 'ha-store': storage"
        " 'other' already lies on DRBD resource 'r0' volume 0. Use that one, or another path and resource"
    )
    page.submit_refused()
    pictures.take(page, "gui-refused")
    assert page.js("const box = message().msg.el.dom; return box.scrollHeight <= box.clientHeight + 1")


def test_the_retention_tab_is_there(state: State, page: Page) -> None:
    page.open()
    filled(page)
    page.show_tab("Backup Retention")
    pictures.take(page, "gui-retention")
    assert page.has("keep-last")
    assert not page.js("return dialog().down('pveBackupJobPrunePanel').isMasked()")
