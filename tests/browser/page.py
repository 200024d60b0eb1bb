"""The page as a user works on it: real clicks and keys, and conditions waited for, never a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    StaleElementReferenceException,
)
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement

SECONDS = 30  # for a condition that holds in a moment on an idle machine
OURS = "DRBD/OCFS2"

# Within the dialog, by the name of a field: the one that is in use where there are two of one name.
HELPERS = """
const dialog = () => Ext.ComponentQuery.query('window[ipanel]:not([destroyed])')[0];
const field = (name) => {
    let all = dialog().query(`[isFormField][name=${name}]`);
    return all.find((one) => !one.disabled) || all[0];
};
const tips = () => Ext.ComponentQuery.query('tip').filter((tip) => tip.isVisible());
const message = () => Ext.ComponentQuery.query('messagebox').find((box) => box.isVisible());
const busy = () => dialog().loadMask && dialog().loadMask.isVisible && dialog().loadMask.isVisible();
"""


_NOTICED = """const f = field(arguments[0]);
return f.getRawValue() === arguments[1] && String(f.lastValue ?? '') === String(f.getValue() ?? '')"""
"""The text in the box, the value made of it, and the change event that follows after a moment."""
_NOTICED_SECONDS = 3.0


class Page:
    """One page in the browser."""

    def __init__(self, browser: WebDriver, url: str) -> None:
        self.browser = browser
        self.url = url

    # --- the page as a whole ---------------------------------------------------------------------

    def open(self) -> None:
        """Load the page, and wait until the list of storages is there with its answer from the API."""
        self.browser.get(self.url)
        self.wait_for("const list = Ext.ComponentQuery.query('viewport grid')[0]; return list && list.store.isLoaded()")

    def js(self, body: str, *arguments: object) -> Any:
        return self.browser.execute_script(HELPERS + body, *arguments)

    def wait_for(self, body: str, *arguments: object) -> Any:
        """What the script returns as soon as that is true."""
        try:
            return wait(lambda: self.js(f"try {{ {body} }} catch (e) {{ return false }}", *arguments), body)
        except AssertionError as error:
            error.add_note(f"errors of the page: {self.errors()}")
            raise

    def errors(self) -> list[str]:
        return self.js("return window.pageErrors || ['the test doubles did not load']")

    # --- the list of storages --------------------------------------------------------------------

    def menu(self) -> list[str]:
        """Open the Add menu if it is not open; the entries it shows."""
        # a menu that has closed a moment ago ignores a click
        self.click_until(
            "return Ext.ComponentQuery.query('viewport #add')[0].menu.isVisible()",
            "Ext.ComponentQuery.query('viewport #add')[0].el.dom",
        )
        return self.js("return Ext.ComponentQuery.query('viewport #add')[0].menu.items.getRange().map((i) => i.text)")

    def choose_entry(self, name: str) -> None:
        """Choose a type in the Add menu."""
        assert name in self.menu()
        self.click_until(
            "return !!dialog() || !Ext.ComponentQuery.query('viewport #add')[0].menu.isVisible()",
            "Ext.ComponentQuery.query('viewport #add')[0].menu.items.findBy((i) => i.text === arguments[0]).el.dom",
            name,
        )

    def add(self, name: str = OURS) -> None:
        """Choose a type in the Add menu, and wait for its dialog."""
        self.choose_entry(name)
        self.wait_for("return dialog().isVisible()")

    def edit(self, storage: str) -> None:
        """Choose a storage in the list and press Edit; the dialog is there with the section loaded."""
        self.wait_for(  # the list is loaded anew when a dialog closes, and the answer takes a selection away
            "const s = Ext.ComponentQuery.query('viewport grid')[0].store; return s.isLoaded() && !s.isLoading()"
        )
        self.click_until(
            "return Ext.ComponentQuery.query('viewport grid')[0].getSelection().length === 1",
            "(() => { const g = Ext.ComponentQuery.query('viewport grid')[0];"
            " return g.getView().getRow(g.store.findExact('storage', arguments[0])) })()",
            storage,
        )
        self.click_on("Ext.ComponentQuery.query('viewport #edit')[0].el.dom")
        self.wait_for("return dialog().isVisible() && !!dialog().digest && !busy()")

    # --- the dialog ------------------------------------------------------------------------------

    def title(self) -> str:
        return self.js("return dialog().getTitle()")

    def is_open(self) -> bool:
        return self.js("return !!dialog()")

    def value(self, name: str) -> Any:
        return self.js("return field(arguments[0]).getValue()", name)

    def shown(self, name: str) -> str:
        """The text a read-only field shows."""
        return self.js("return field(arguments[0]).inputEl.dom.textContent", name)

    def xtype(self, name: str) -> str:
        return self.js("return field(arguments[0]).xtype", name)

    def has(self, name: str) -> bool:
        return self.js("return !!field(arguments[0])", name)

    def type(self, name: str, text: str) -> None:
        """Replace what is in a field by keys, and wait until ExtJS has noticed."""
        box: WebElement = self.js("return field(arguments[0]).inputEl.dom", name)
        wait(lambda: self._emptied(box, name), f"{name} is empty")
        if text:
            box.send_keys(text)
            self.wait_for(_NOTICED, name, text)

    def _emptied(self, box: WebElement, name: str) -> bool:
        """By keys; whoever types again where a busy page has lost one."""
        if not _click(box):
            return False
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(Keys.DELETE)
        deadline = time.monotonic() + _NOTICED_SECONDS
        while not (noticed := bool(self.js(_NOTICED, name, ""))) and time.monotonic() < deadline:
            time.sleep(0.05)
        return noticed

    def choose(self, name: str, *keys: str) -> None:
        """Make the selection of a combo box exactly this, by clicks on its list."""
        self.wait_for("return field(arguments[0]).getStore().getCount() > 0", name)
        self.click_until("return !!field(arguments[0]).isExpanded", "field(arguments[0]).triggers.picker.el.dom", name)
        several = self.js("return !!field(arguments[0]).multiSelect", name)
        before = self.js("return Ext.Array.from(field(arguments[0]).getValue())", name) if several else []
        for key in sorted(set(keys) ^ set(before)):
            self.click_until(
                "return Ext.Array.from(field(arguments[0]).getValue()).includes(arguments[1]) === arguments[2]",
                "(() => { const f = field(arguments[0]); return f.getPicker()"
                ".getNode(f.findRecordByValue(arguments[1])) })()",
                name,
                key,
                key in keys,
            )
        self.js("field(arguments[0]).collapse()", name)

    def tick(self, name: str, on: bool) -> None:
        self.click_until(
            "return field(arguments[0]).getValue() === arguments[1]", "field(arguments[0]).inputEl.dom", name, on
        )

    def show_advanced(self) -> None:
        self.click_until(
            "return dialog().down('#advancedContainer').isVisible()", "dialog().down('#advancedcb').inputEl.dom"
        )

    def show_tab(self, title: str) -> None:
        self.click_until(
            "return dialog().down('tabpanel').getActiveTab().title === arguments[0]",
            "dialog().down('tabpanel').getTabBar().items.findBy((tab) => tab.text === arguments[0]).el.dom",
            title,
        )

    def complaints(self, name: str) -> list[str]:
        """Why a field is refused: the messages its mark shows, none when it is not marked."""
        return self.js(
            "const f = field(arguments[0]); return f.hasActiveError() && f.el.dom.querySelector('.x-form-invalid-field,"
            " .x-form-trigger-wrap-invalid') ? f.getActiveErrors() : []",
            name,
        )

    def wait_for_complaints(self, name: str) -> list[str]:
        return wait(lambda: self.complaints(name), f"a mark at {name}")

    def judge(self, name: str, text: str) -> list[str]:
        """What the field says to a text, put there without keys: for many texts, and such as keys cannot make."""
        return self.js(
            "const f = field(arguments[0]); f.setRawValue(arguments[1]); f.checkChange(); f.validate();"
            " return f.getActiveErrors()",
            name,
            text,
        )

    def hover(self, name: str) -> list[str]:
        """Move the mouse away and onto a field; the texts of the tips that appear: two would cover each other."""
        box, title = self.js("return [field(arguments[0]).inputEl.dom, dialog().header.el.dom]", name)
        ActionChains(self.browser).move_to_element(title).perform()
        self.wait_for("return !tips().length")
        ActionChains(self.browser).move_to_element(box).perform()
        self.wait_for("return tips().length")
        return self.js("return tips().map((tip) => tip.el.dom.innerText.trim())")

    def may_submit(self) -> bool:
        return self.js("return !dialog().down('#submit').disabled")

    def wait_until_submittable(self, is_so: bool = True) -> None:
        self.wait_for("return dialog().down('#submit').disabled !== arguments[0]", is_so)

    def submit(self) -> None:
        """Press Add or OK, and wait until the dialog has closed by itself: the API took it."""
        self._press()
        self.wait_for("return !dialog()")

    def submit_refused(self) -> str:
        """Press Add or OK, and wait for the message box; its text as a user reads it."""
        self._press()
        return self.wait_for("const box = message(); return box && !busy() && box.msg.el.dom.innerText")

    def accept_message(self) -> None:
        self.click_until("return !message()", "message().down('button[text=OK]').el.dom")

    def _press(self) -> None:
        self.wait_until_submittable()
        self.click_on("dialog().down('#submit').el.dom")

    # --- clicks ----------------------------------------------------------------------------------

    def click_on(self, expression: str, *arguments: object) -> None:
        """Click once on the element that a JavaScript expression gives, as soon as it can be hit."""
        wait(lambda: self._hit(expression, *arguments), f"a click on {expression}")

    def click_until(self, condition: str, expression: str, *arguments: object) -> None:
        """Click until a condition holds: a click is lost where the element moves at that moment, as a layout does."""

        def attempt() -> bool:
            holds: bool = self.js(condition, *arguments)
            return holds or (self._hit(expression, *arguments) and self.js(condition, *arguments))

        wait(attempt, f"{condition} by clicks on {expression}")

    def _hit(self, expression: str, *arguments: object) -> bool:
        element = self.js(f"try {{ return {expression} }} catch (e) {{ return null }}", *arguments)
        return element is not None and _click(element)


def _click(element: WebElement) -> bool:
    """False while something lies over it (a mask that goes away) or it is being drawn anew."""
    try:
        element.click()
    except (ElementClickInterceptedException, ElementNotInteractableException, StaleElementReferenceException):
        return False
    return True


def wait(attempt: Callable[[], Any], what: str) -> Any:
    """What ``attempt`` gives as soon as that is true, asked again and again."""
    deadline = time.monotonic() + SECONDS
    while not (result := attempt()):
        assert time.monotonic() < deadline, f"{SECONDS} s and still not: {what}"
        time.sleep(0.02)
    return result
