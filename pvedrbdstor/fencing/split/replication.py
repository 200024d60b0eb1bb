"""DRBD's words for whose data a resync copies (`replication:` of drbdsetup events2; enum drbd_repl_state)."""

from __future__ import annotations

COMING = ("SyncTarget", "PausedSyncT", "WFSyncUUID")
"""The other node's data are being copied to this one."""
OVERWRITING = (*COMING, "WFBitMapT", "StartingSyncT")
"""And just before that, when it cannot be stopped any more by forgetting about it."""
AWAY = ("SyncSource", "PausedSyncS", "WFBitMapS", "StartingSyncS")
"""This node's data are being copied to the other one."""
VERIFYING = ("VerifyS", "VerifyT")
