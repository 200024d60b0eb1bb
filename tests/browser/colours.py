"""The contrast of text to what lies behind it, as a browser has drawn both."""

from __future__ import annotations

CONTRAST = 4.5
"""WCAG 2.1, success criterion 1.4.3."""
# `luminance` of a colour, `parse` of what a style says of it, `behind` an element
COLOURS = """
const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const luminance = (rgb) => {
    let [r, g, b] = rgb.slice(0, 3).map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
        let colour = parse(getComputedStyle(at).backgroundColor);
        if (colour.length === 3 || colour[3] > 0) {
            return colour;
        }
    }
    return [255, 255, 255];
};
"""
