"""Whether a mount point holds the mirror it should hold."""
