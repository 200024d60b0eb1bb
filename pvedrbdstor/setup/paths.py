"""Where a setup looks and writes, and where it keeps its plan and its journal."""

from __future__ import annotations

STORAGE_CFG = "/etc/pve/storage.cfg"
FIREWALL = "/etc/pve/firewall/cluster.fw"
HOST_FIREWALL = "/etc/pve/local/host.fw"
"""The node's own, whose rules come before those of all nodes."""
LVM_CONF = "/etc/lvm/lvm.conf"
LVM_LOCAL = "/etc/lvm/lvmlocal.conf"
"""What it says counts before lvm.conf."""
DRBD_CONF = "/etc/drbd.conf"
RESOURCES = "/etc/drbd.d"
UDEV_RULES = "/etc/udev/rules.d"
RULES_PREFIX = "99-pvedrbdstor-"
MOUNTS = "/mnt/pve"
FOLDER = "/var/lib/pvedrbdstor/setup"
LOCK = "/run/lock/pvedrbdstor-setup"
"""Held by flock() on a node while a step is taken there, also by the programs it runs."""


def plan(storage: str) -> str:
    """JSON, readable by root alone: what `setup plan` has shown last."""
    return f"{FOLDER}/{storage}.plan.json"


def journal(storage: str) -> str:
    """JSON: which steps of that plan were begun and have ended."""
    return f"{FOLDER}/{storage}.journal.json"
