"""Which kernels are installed, and whether each has the modules of the mirror. Reads /boot and /lib/modules, and asks modinfo(8)."""

from __future__ import annotations

import os

from pvedrbdstor import command
from pvedrbdstor.doctor.answers import text_of

BOOT, MODULES = "/boot", "/lib/modules"
NEEDED = ("drbd", "ocfs2", "ocfs2_stack_o2cb", "ocfs2_dlmfs")
_IMAGE = "vmlinuz-"
_SECONDS = 4.0
_MOST = 12
"""Of the newest that are looked at: each costs a call of modinfo."""


def installed_kernels() -> list[dict[str, object]]:
    """Each with an image in /boot, and the running one: `release`, `running`, `missing` modules, and `drbd`, the version of its DRBD module."""
    running = os.uname().release
    releases = (
        {name.removeprefix(_IMAGE) for name in os.listdir(BOOT) if name.startswith(_IMAGE)} if _is(BOOT) else set()
    )
    chosen = sorted(releases, key=order)[-_MOST:]
    return [_kernel(release, running) for release in sorted({*chosen, running}, key=order)]


def order(release: str) -> tuple[tuple[int, int, str], ...]:
    """For sorting releases as people number them: 6.8.12-10 after 6.8.12-9."""
    words, word = [], ""
    for character in release:
        if word and character.isdecimal() != word[-1].isdecimal():
            words.append(word)
            word = ""
        word += character
    if word:
        words.append(word)
    return tuple(
        (1, int(part), "") if part.isdecimal() and part.isascii() and len(part) < 18 else (0, 0, part) for part in words
    )


def _kernel(release: str, running: str) -> dict[str, object]:
    own = release == running
    there = _modules(release) | ({name for name in NEEDED if _loaded(name)} if own else set())
    missing = [name for name in NEEDED if name not in there]
    version = None
    if own and _loaded("drbd"):
        version = _line("/sys/module/drbd/version")
    elif "drbd" not in missing:
        version = _version(release)
    return {"release": release, "running": own, "missing": missing, "drbd": version}


def _modules(release: str) -> set[str]:
    """The modules that modprobe(8) would find for a kernel, and those built into it, by their names (modules.dep(5))."""
    found = set()
    for file in ("modules.dep", "modules.builtin"):
        for line in (text_of(f"{MODULES}/{release}/{file}", 16 << 20) or "").splitlines():
            name = line.partition(":")[0].rpartition("/")[2]
            found.add(name.partition(".ko")[0].replace("-", "_"))
    return found


def _version(release: str) -> str | None:
    """Of a kernel's DRBD module; None where it does not tell one. Raises CommandFailed where there is no modinfo, CommandTimeout."""
    result = command.run(["modinfo", "-k", release, "-F", "version", "drbd"], timeout=_SECONDS, check=False)
    return result.stdout.strip() or None if result.status == 0 else None


def _loaded(module: str) -> bool:
    return _is(f"/sys/module/{module}")


def _is(path: str) -> bool:
    return os.path.isdir(path)


def _line(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(64).strip() or None
    except OSError:
        return None
