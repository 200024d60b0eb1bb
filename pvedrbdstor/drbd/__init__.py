"""DRBD's outputs as values; no I/O here."""
