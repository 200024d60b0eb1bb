"""How our pictures look: one style sheet, for light and dark pages. Pure."""

from __future__ import annotations

from collections.abc import Mapping


def style_sheet(fills: Mapping[str, tuple[str, str]]) -> str:
    """The common part, and a class for each kind of bar: its name, its colour on a light page and on a dark one."""
    light = "\n".join(f".{name} {{ fill: {colour} }}" for name, (colour, _) in fills.items())
    dark = "\n".join(f"  .{name} {{ fill: {colour} }}" for name, (_, colour) in fills.items())
    return f"""\
text {{ font: 13px system-ui, sans-serif; fill: #24292f }}
.title {{ font-size: 16px; font-weight: 600 }}
.small {{ font-size: 11px; fill: #57606a }}
.page {{ fill: #ffffff }}
.grid {{ stroke: #d0d7de; stroke-width: 1 }}
{light}
@media (prefers-color-scheme: dark) {{
  text {{ fill: #e6edf3 }}
  .small {{ fill: #9198a1 }}
  .page {{ fill: #0d1117 }}
  .grid {{ stroke: #30363d }}
{dark}
}}"""
