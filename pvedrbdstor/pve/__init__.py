"""Proxmox's own files: storage.cfg and the guests' configurations, read only. Knows nothing of volumes on disk."""
