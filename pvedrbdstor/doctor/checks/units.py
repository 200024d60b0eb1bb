"""This package's own units: enabled, running, and none that has failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pvedrbdstor.doctor.facts import Look, Node, plain
from pvedrbdstor.doctor.finding import Entry, Finding, Severity
from pvedrbdstor.doctor.units import AT_BOOT, UNITS

FAILED = Entry("unit-failed", (Severity.WARNING,), "a unit of this package has failed")
OFF = Entry("unit-off", (Severity.WARNING,), "a unit that this package enables is disabled, masked, or does not run")
ENTRIES = (FAILED, OFF)
_PURPOSES = {
    "pvedrbdstor.socket": "Without it each request of Proxmox starts Python anew, and nobody keeps the mirror's state.",
    "pvedrbdstor-fence.service": "Without it this node cannot decide whether it may go on when it loses the other one: its guests would stand still.",
    "pvedrbdstor-mirrors.service": "Without it a shutdown takes the mirror away from under the guests.",
    "pvedrbdstor-boot.service": "Without it the storages come up only when Proxmox first asks for them, after guests may have been started.",
    "pvedrbdstor-metadata.timer": "Without it the backup of the metadata grows old.",
}


def check(look: Look) -> Iterator[Finding]:
    for node in look.nodes:
        units = {name: state for name, state in node.mapping("units").items() if isinstance(state, dict)}
        for name, state in units.items():
            if state.get("ActiveState") == "failed":
                yield _failed(node, plain(name, 80))
            elif name in UNITS and (why := _off(name, state)) is not None:
                yield _not_on(node, name, state, why)


def _failed(node: Node, name: str) -> Finding:
    return FAILED.found(
        f"{name} has failed on {node.name}",
        _PURPOSES.get(name, "What it was to do was not done."),
        f"See why there: 'journalctl -u {name} -n 50'; mend that, then 'systemctl reset-failed {name}'{_again(name)}",
        nodes=(node.name,),
    )


def _again(name: str) -> str:
    """The units of the mirrors and of one storage are begun anew by what they belong to, at the latest by the next boot."""
    return f" and 'systemctl start {name}'" if name in UNITS else ""


def _off(name: str, state: Mapping[str, object]) -> str | None:
    """Why it does not do its work, one word; None where it does."""
    if state.get("LoadState") == "masked" or state.get("UnitFileState") in ("masked", "masked-runtime"):
        return "masked"
    if state.get("LoadState") == "not-found":
        return "missing"
    if state.get("UnitFileState") == "disabled":
        return "disabled"
    if state.get("ActiveState") == "inactive" and name not in AT_BOOT:
        return "not running"
    return None


def _not_on(node: Node, name: str, state: Mapping[str, object], why: str) -> Finding:
    remedy = {
        "masked": f"Run 'systemctl unmask {name}' there, then 'systemctl enable --now {name}'",
        "missing": "Run 'apt install --reinstall pvedrbdstor' there",
        "not running": f"Run 'systemctl start {name}' there",
    }.get(why, f"Run 'systemctl enable --now {name}' there")
    return OFF.found(f"{name} is {why} on {node.name}", _PURPOSES[name], remedy, nodes=(node.name,))
