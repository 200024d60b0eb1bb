"""From a booted node to the mounted mirror, and back: what is missing, one step at a time."""
