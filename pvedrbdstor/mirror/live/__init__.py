"""The live view: a process that watches DRBD, o2cb and the mounts, and what it tells everybody else in small files."""
