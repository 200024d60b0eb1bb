"""Which kernels are installed, which of them is pinned, and whether each has the modules of the mirror. Reads /boot, /lib/modules and /etc/kernel, and
asks modinfo(8)."""

from __future__ import annotations

import os

from pvedrbdstor import command
from pvedrbdstor.doctor.answers import text_of

BOOT, MODULES = "/boot", "/lib/modules"
PIN, PIN_ONCE = "/etc/kernel/proxmox-boot-pin", "/etc/kernel/next-boot-pin"
"""Whose first line is the release that `proxmox-boot-tool kernel pin` has chosen, for good and for the next boot alone, which comes first
(zz-proxmox-boot). A boot takes the second away (proxmox-boot-cleanup.service)."""
NEEDED = ("drbd", "ocfs2", "ocfs2_stack_o2cb", "ocfs2_dlmfs")
_IMAGE = "vmlinuz-"
_SECONDS = 4.0
_MOST = 12
"""Of the newest that are looked at, beside those pinned and the running one: each costs a call of modinfo."""


def installed_kernels() -> list[dict[str, object]]:
    """Each with an image in /boot, and the running one: `release`, `running`, `missing` modules, `drbd`, the version of its DRBD module, of the running
    one that which is loaded, `drbd_on_disk`, that which its next start loads, and whether it is `pinned`, or `pinned_once`."""
    running = os.uname().release
    releases = (
        {name.removeprefix(_IMAGE) for name in os.listdir(BOOT) if name.startswith(_IMAGE)} if _is(BOOT) else set()
    )
    pins = {"pinned": _first_line(PIN), "pinned_once": _first_line(PIN_ONCE)}
    chosen = {running, *sorted(releases, key=order)[-_MOST:], *releases.intersection(pins.values())}
    return [
        {
            **_kernel(release, running),
            # what is pinned and has no image any more is not booted: another is, as without the pin
            **{name: release == pin and release in releases for name, pin in pins.items()},
        }
        for release in sorted(chosen, key=order)
    ]


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
    modules = _modules(release)
    there = modules | ({name for name in NEEDED if _loaded(name)} if own else set())
    missing = [name for name in NEEDED if name not in there]
    on_disk = _version(release) if "drbd" in modules else None
    version = _line("/sys/module/drbd/version") if own and _loaded("drbd") else on_disk
    return {"release": release, "running": own, "missing": missing, "drbd": version, "drbd_on_disk": on_disk}


def _modules(release: str) -> set[str]:
    """The modules that modprobe(8) would find for a kernel, and those built into it, by their names (modules.dep(5))."""
    found = set()
    for file in ("modules.dep", "modules.builtin"):
        for line in (text_of(f"{MODULES}/{release}/{file}", 16 << 20) or "").splitlines():
            name = line.partition(":")[0].rpartition("/")[2]
            found.add(name.partition(".ko")[0].replace("-", "_"))
    return found


def _first_line(path: str) -> str:
    return next(iter((text_of(path) or "").splitlines()), "").strip()


def _version(release: str) -> str | None:
    """Of the DRBD module that modprobe(8) would load into a kernel, DKMS's before the kernel's own; None where it does not tell one. Raises CommandFailed where there is no modinfo, CommandTimeout."""
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
