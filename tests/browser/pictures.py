"""Pictures of the dialog: all go into artifacts/browser/, those of the install guide also where they are asked for."""

from __future__ import annotations

import io
import os
from pathlib import Path

from PIL import Image

from tests.browser.page import Page

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "artifacts" / "browser"
GUIDE = {"gui-add", "gui-edit", "gui-refused"}  # docs/images/ has these
MARGIN = 8  # pixels around the windows


def take(page: Page, name: str) -> None:
    """A picture of the open windows, and of the tip if one is shown, on an empty page."""
    page.wait_for("return document.fonts.status === 'loaded' && !busy()")
    page.js(
        """
        document.activeElement.blur(); // no cursor that blinks
        Ext.ComponentQuery.query('viewport')[0].items.first().el.setStyle('visibility', 'hidden');
        """
    )
    left, top, right, bottom = page.js(
        """
        const boxes = Ext.ComponentQuery.query('window, tip').filter((w) => w.isVisible())
            .map((w) => w.el.dom.getBoundingClientRect());
        return [Math.min(...boxes.map((b) => b.left)), Math.min(...boxes.map((b) => b.top)),
            Math.max(...boxes.map((b) => b.right)), Math.max(...boxes.map((b) => b.bottom))];
        """
    )
    whole = Image.open(io.BytesIO(page.browser.get_screenshot_as_png())).convert("RGB")
    size = whole.size
    cut = whole.crop(
        (
            max(0, int(left) - MARGIN),
            max(0, int(top) - MARGIN),
            min(size[0], int(right) + MARGIN),
            min(size[1], int(bottom) + MARGIN),
        )
    )
    small = cut.quantize(128)
    folders = [ARTIFACTS]
    if name in GUIDE and (asked := os.environ.get("PVEDRBDSTOR_SCREENSHOTS")):
        folders.append(ROOT / asked)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        small.save(folder / f"{name}.png", optimize=True)
