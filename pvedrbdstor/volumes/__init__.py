"""Disk images below one folder: knows names, files and snapshots, never DRBD."""
