"""Where the guard, its handler and whoever asks about them find each other. All of it lies in memory."""

from __future__ import annotations

FOLDER = "/run/pvedrbdstor-fence"
SOCKET = f"{FOLDER}/guard.sock"  # csrc/handler/fence-peer.c has it, too
STATUS = f"{FOLDER}/status.json"
MEMORY = f"{FOLDER}/outages.json"
HANDLER = "/usr/lib/pvedrbdstor/fence-peer"
UNFENCE = "/usr/lib/pvedrbdstor/unfence-peer"
COROSYNC_CONF = "/etc/corosync/corosync.conf"
