"""What systemd says of this package's units, in one call."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pvedrbdstor import command

UNITS = (
    "pvedrbdstor.socket",
    "pvedrbdstor-fence.service",
    "pvedrbdstor-mirrors.service",
    "pvedrbdstor-boot.service",
    "pvedrbdstor-metadata.timer",
)
"""Those that the package enables."""
AT_BOOT = frozenset({"pvedrbdstor-boot.service"})
"""Of these, those whose only work is at boot: from the installation to the next boot they are inactive, and lack nothing. Being stopped they would do
nothing either: at shutdown pvedrbdstor-mirrors.service takes the storages down, which the installation starts (debian/pvedrbdstor.postinst)."""
_RUNS = "/run/systemd/system"
"""There while systemd is the first process: sd_booted(3)."""
_SECONDS = 4.0
_PROPERTIES = ("Id", "LoadState", "ActiveState", "UnitFileState")
_LOADED = ("pvedrbdstor.service", "pvedrbdstor-*.service", "pvedrbdstor-*.timer")
"""More of them, where they are loaded: instances too. systemctl(1), "Parameter syntax"."""


def states() -> dict[str, dict[str, str]] | None:
    """Unit -> its properties by name; None where systemd does not run. Raises CommandFailed, CommandTimeout."""
    if not os.path.isdir(_RUNS):
        return None
    properties = [f"--property={name}" for name in _PROPERTIES]
    argv = ["systemctl", "show", "--no-pager", *properties, *UNITS, *_LOADED]
    return dict(parse(command.run(argv, timeout=_SECONDS).stdout))


def parse(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The output of `systemctl show`: a paragraph of NAME=VALUE for each unit; pure."""
    for paragraph in text.split("\n\n"):
        pairs = (line.partition("=") for line in paragraph.splitlines())
        found = {name: value for name, equals, value in pairs if equals}
        if unit := found.pop("Id", ""):
            yield unit, found
