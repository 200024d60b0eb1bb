"""What a cluster could have left on the host: found by the folder that every part of it names."""

from __future__ import annotations

from pathlib import Path


def find(folder: Path) -> list[str]:
    """Processes, mounts and loop devices that name ``folder``, and the folder itself, each as a line for people."""
    found = [f"folder {folder}"] if folder.exists() else []
    needle = str(folder)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        if needle in command:
            found.append(f"process {process.name}: {command[:200]}")
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [f"mount {line}" for line in mounts if needle in line]
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            file = backing.read_text().strip()
        except OSError:
            continue
        if needle in file:
            found.append(f"loop device {backing.parts[3]}: {file}")
    return found
