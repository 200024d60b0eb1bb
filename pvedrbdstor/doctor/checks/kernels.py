"""The kernels: has each that is installed, and might be booted next, the modules of the mirror, in a generation that fits?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pvedrbdstor.doctor.facts import Look, Node, plain
from pvedrbdstor.doctor.finding import Entry, Finding, Severity
from pvedrbdstor.doctor.kernels import order

_DRBD_BUILD = "https://github.com/LINBIT/drbd/issues/111"
MISSING = Entry(
    "kernel-no-module",
    (Severity.WARNING, Severity.ERROR, Severity.HINT),
    "an installed kernel lacks modules of DRBD or OCFS2; the running or pinned one is an error, one that is older or not the pinned one a hint",
    _DRBD_BUILD,
)
GENERATION = Entry(
    "kernel-drbd-generation",
    (Severity.WARNING, Severity.HINT),
    "a newer or pinned kernel has, or the running one has on the disk, DRBD 8.4 where 9 runs, or 9 where 8.4 runs; a hint while another kernel is pinned",
)
DIFFERENT = Entry("drbd-generations-differ", (Severity.WARNING,), "the nodes run different generations of DRBD")
ENTRIES = (MISSING, GENERATION, DIFFERENT)
_UP = "Decide before you reboot: read LINBIT's guide on upgrading from 8.4, or keep the module away ('apt remove drbd-dkms')"
_VERSION = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})")


def check(look: Look) -> Iterator[Finding]:
    if not look.storages:
        return
    for node in look.nodes:
        kernels = node.items("kernels")
        running = next((kernel for kernel in kernels if kernel.get("running") is True), None)
        for kernel in kernels:
            yield from _kernel(node, kernel, running, _turn(kernel, running, kernels))
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


@dataclass(frozen=True, slots=True)
class Turn:
    """When a kernel is booted, one clause, and how grave it is that it then lacks something. spare: only of use to go back to. left: not taken, as another
    is pinned."""

    when: str
    severity: Severity
    spare: bool = False
    left: bool = False


def _turn(
    kernel: Mapping[str, object], running: Mapping[str, object] | None, kernels: Sequence[Mapping[str, object]]
) -> Turn:
    """Of a pin alone it is known which kernel is taken: without, the newest, or what the boot loader was told otherwise."""
    pinned, once = (
        next((_release(each) for each in kernels if each.get(key) is True), None) for key in ("pinned", "pinned_once")
    )
    release = _release(kernel)
    if release == once:
        return Turn("the next reboot takes it, as it is pinned for that one", Severity.ERROR)
    if release == pinned:
        when = "the reboot after the next takes it" if once else "the next reboot takes it"
        return Turn(f"{when}, as it is pinned", Severity.ERROR)
    newer = running is None or order(release) > order(_release(running))
    if not newer:
        when = "it is older than the running one, and only of use to go back to"
        return Turn(when, Severity.HINT, spare=True, left=pinned is not None)
    if pinned is not None:
        return Turn(f"no reboot takes it while {pinned} is pinned", Severity.HINT, left=True)
    if once is not None:
        return Turn(f"{once} is pinned for the next reboot alone, and the one after that may take it", Severity.WARNING)
    return Turn("the next reboot may take it", Severity.WARNING)


def _release(kernel: Mapping[str, object]) -> str:
    return plain(kernel.get("release"), 80)


def _kernel(
    node: Node, kernel: Mapping[str, object], running: Mapping[str, object] | None, turn: Turn
) -> Iterator[Finding]:
    release = _release(kernel)
    listed = kernel.get("missing")
    missing = [plain(name, 40) for name in listed[:8]] if isinstance(listed, list) else []
    now = kernel.get("running") is True
    if missing and now:
        yield MISSING.found(
            f"The running kernel {release} of {node.name} has no module {', '.join(missing)}",
            "The storage cannot come up on this node.",
            _install(release, missing),
            nodes=(node.name,),
            severity=Severity.ERROR,
        )
    elif missing:
        yield MISSING.found(
            f"Kernel {release}, installed on {node.name}, has no module {', '.join(missing)}",
            f"With it the storage does not come up; {turn.when}.",
            f"{_install(release, missing)}; or {_passed_over(kernel, turn)}",
            nodes=(node.name,),
            severity=turn.severity,
        )
    elif now:
        yield from _at_its_next_start(node, release, kernel)
    elif running is not None and not turn.spare:
        yield from _generation(node, release, kernel, running, turn)


def _passed_over(kernel: Mapping[str, object], turn: Turn) -> str:
    """How it is not booted. The boot loader knows of a pin from `refresh` on, which `pin` only offers; a pin for the next boot comes before another."""
    refresh = "'proxmox-boot-tool refresh'"
    if turn.left:
        return f"leave it at that: {refresh}, if that was not run since the other was pinned, or remove it"
    unpin = "'proxmox-boot-tool kernel unpin --next-boot', " if kernel.get("pinned_once") is True else ""
    remove = "" if turn.severity is Severity.ERROR else ", or remove it"
    return (
        f"do not boot it: {unpin}'proxmox-boot-tool kernel pin RELEASE' with one that has them, then {refresh}{remove}"
    )


def _install(release: str, missing: list[str]) -> str:
    """The package is not guessed: the unsigned kernel would take the place of a signed one, which Secure Boot needs."""
    again = f"'dpkg -S /boot/vmlinuz-{release}' names its package, then 'apt install --reinstall PACKAGE'"
    if missing == ["drbd"]:
        return f"Install the modules of that kernel again ({again}), or, if 'dkms status' names drbd, build it for that kernel: {_build(release)}"
    return f"Install the modules of that kernel again: {again}"


def _build(release: str, *more: str) -> str:
    """DKMS passes a kernel over whose headers are not installed. more: packages."""
    headers = f"{'proxmox' if release.endswith('-pve') else 'linux'}-headers-{release}"
    return f"'apt install {' '.join((headers, *more))}', then 'dkms autoinstall -k {release}'"


def _generation(
    node: Node, release: str, kernel: Mapping[str, object], running: Mapping[str, object], turn: Turn
) -> Iterator[Finding]:
    then, now = _of(kernel.get("drbd")), _of(running.get("drbd"))
    if then is None or now is None or then == now:
        return
    yield GENERATION.found(
        f"Kernel {release}, installed on {node.name}, has DRBD {then}; DRBD {now} is running",
        f"{_meaning(then)} {turn.when[0].upper()}{turn.when[1:]}.",
        _UP if then == "9" else f"Build DRBD 9 for it before you boot it: {_build(release)}",
        nodes=(node.name,),
        severity=min(turn.severity, Severity.WARNING),
    )


def _at_its_next_start(node: Node, release: str, kernel: Mapping[str, object]) -> Iterator[Finding]:
    """Of the running kernel: DKMS builds into it, too, and nobody notices until DRBD is loaded again."""
    then, now = _of(kernel.get("drbd_on_disk")), _of(kernel.get("drbd"))
    if then is None or now is None or then == now:
        return
    yield GENERATION.found(
        f"The next start of the running kernel {release} of {node.name} loads DRBD {then}; DRBD {now} is running",
        f"{_meaning(then)} The same happens when DRBD's module is unloaded and loaded again.",
        _UP if then == "9" else f"Build DRBD 9 for it before you reboot: {_build(release, 'drbd-dkms')}",
        nodes=(node.name,),
    )


def _meaning(then: str) -> str:
    """then: the generation that is loaded next."""
    return (
        "DRBD 9 changes the metadata on the disk when it first attaches, writes `fencing` in net { } and not in disk { }, and cannot go back."
        if then == "9"
        else "The module in the kernel is 8.4, which cannot attach a disk with metadata of DRBD 9: the storage does not come up with it."
    )


def _running(node: Node) -> str | None:
    return next((_of(kernel.get("drbd")) for kernel in node.items("kernels") if kernel.get("running") is True), None)


def _of(version: object) -> str | None:
    """The generation of a module's version."""
    found = _VERSION.match(version) if isinstance(version, str) else None
    if found is None:
        return None
    return "9" if int(found[1]) >= 9 else f"{int(found[1])}.{int(found[2])}"
