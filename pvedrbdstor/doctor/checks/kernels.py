"""The kernels: has each that is installed, and might be booted next, the modules of the mirror, in a generation that fits?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pvedrbdstor.doctor.facts import Look, Node, plain
from pvedrbdstor.doctor.finding import Entry, Finding, Severity
from pvedrbdstor.doctor.kernels import order

_DRBD_BUILD = "https://github.com/LINBIT/drbd/issues/111"
MISSING = Entry(
    "kernel-no-module",
    (Severity.WARNING, Severity.ERROR, Severity.HINT),
    "an installed kernel lacks modules of DRBD or OCFS2; the running one is an error, an older one than that a hint",
    _DRBD_BUILD,
)
GENERATION = Entry(
    "kernel-drbd-generation",
    (Severity.WARNING,),
    "an installed, newer kernel has DRBD 8.4 where 9 runs, or 9 where 8.4 runs",
)
DIFFERENT = Entry("drbd-generations-differ", (Severity.WARNING,), "the nodes run different generations of DRBD")
ENTRIES = (MISSING, GENERATION, DIFFERENT)
_VERSION = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})")


def check(look: Look) -> Iterator[Finding]:
    if not look.storages:
        return
    for node in look.nodes:
        kernels = node.items("kernels")
        running = next((kernel for kernel in kernels if kernel.get("running") is True), None)
        for kernel in kernels:
            yield from _kernel(node, kernel, running)
    for here, other in look.pairs:
        one, two = (_running(node) for node in (here, other))
        if one is not None and two is not None and one != two:
            yield DIFFERENT.found(
                f"DRBD is {one} on {here.name} and {two} on {other.name}",
                "They may talk to each other, but their configuration is written otherwise and their metadata is another: after an upgrade there is no way "
                "back without a full resync.",
                "Install the same kernel on both ('apt install proxmox-default-kernel'), or DRBD's module for it, and reboot one after the other",
                nodes=(here.name, other.name),
            )


def _kernel(node: Node, kernel: Mapping[str, object], running: Mapping[str, object] | None) -> Iterator[Finding]:
    release = plain(kernel.get("release"), 80)
    listed = kernel.get("missing")
    missing = [plain(name, 40) for name in listed[:8]] if isinstance(listed, list) else []
    now = kernel.get("running") is True
    newer = running is None or order(release) > order(plain(running.get("release"), 80))
    if missing and now:
        yield MISSING.found(
            f"The running kernel {release} of {node.name} has no module {', '.join(missing)}",
            "The storage cannot come up on this node.",
            _install(release, missing),
            nodes=(node.name,),
            severity=Severity.ERROR,
        )
    elif missing:
        when = (
            "the next reboot may take it"
            if newer
            else "it is older than the running one, and only of use to go back to"
        )
        yield MISSING.found(
            f"Kernel {release}, installed on {node.name}, has no module {', '.join(missing)}",
            f"With it the storage does not come up; {when}.",
            f"{_install(release, missing)}; or do not boot it: 'proxmox-boot-tool kernel pin RELEASE' with one that has them, or remove it",
            nodes=(node.name,),
            severity=Severity.WARNING if newer else Severity.HINT,
        )
    elif newer and not now and running is not None:
        yield from _generation(node, release, kernel, running)


def _install(release: str, missing: list[str]) -> str:
    """The package is not guessed: the unsigned kernel would take the place of a signed one, which Secure Boot needs."""
    again = f"'dpkg -S /boot/vmlinuz-{release}' names its package, then 'apt install --reinstall PACKAGE'"
    if missing == ["drbd"]:
        return f"Install the modules of that kernel again ({again}), or build DRBD's for it: 'dkms autoinstall -k {release}'"
    return f"Install the modules of that kernel again: {again}"


def _generation(
    node: Node, release: str, kernel: Mapping[str, object], running: Mapping[str, object]
) -> Iterator[Finding]:
    then, now = _of(kernel.get("drbd")), _of(running.get("drbd"))
    if then is None or now is None or then == now:
        return
    meaning = (
        "DRBD 9 changes the metadata on the disk when it first attaches, writes `fencing` in net { } and not in disk { }, and cannot go back."
        if then == "9"
        else "The module in the kernel is 8.4, which cannot attach a disk with metadata of DRBD 9: the storage does not come up with it."
    )
    remedy = (
        "Decide before you reboot: read LINBIT's guide on upgrading from 8.4, or keep the module away ('apt remove drbd-dkms')"
        if then == "9"
        else f"Build DRBD 9 for it before you boot it: 'dkms autoinstall -k {release}'"
    )
    yield GENERATION.found(
        f"Kernel {release}, installed on {node.name}, has DRBD {then}; DRBD {now} is running",
        meaning,
        remedy,
        nodes=(node.name,),
    )


def _running(node: Node) -> str | None:
    return next((_of(kernel.get("drbd")) for kernel in node.items("kernels") if kernel.get("running") is True), None)


def _of(version: object) -> str | None:
    """The generation of a module's version."""
    found = _VERSION.match(version) if isinstance(version, str) else None
    if found is None:
        return None
    return "9" if int(found[1]) >= 9 else f"{int(found[1])}.{int(found[2])}"
