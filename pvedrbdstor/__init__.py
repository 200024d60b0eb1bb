"""Disk images on a DRBD mirror with OCFS2, for Proxmox VE: the backend of the storage type ``drbdocfs2``."""

__version__ = "0.1.0"
