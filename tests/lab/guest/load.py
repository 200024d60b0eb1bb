"""A node's share of a race: random storage operations through the Perl plugin for some seconds, each result checked.

`python3 -m tests.lab.guest.load SECONDS SEED VMID...` prints one JSON object at the end: how often each operation was
done, every error, and the volumes owned then with what has to be in them. Both nodes use the same guests, so that they
race for names; each works on the volumes that it was given. A volume handed out twice shows in its content.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.lab.formation import STORAGE
from tests.lab.guest.ops import TAG_LENGTH, tag_in
from tests.lab.storage import PLUGIN_COMMAND

_MIB = 1 << 20
_MOST_VOLUMES = 6
_MOST_SNAPSHOTS = 2


class Died(Exception):
    """A PVE::Storage function died."""


class NothingSuits(Exception):
    """We have no volume that the operation could be done with; nothing was done."""


class Volume:
    """A volume of ours: its content's tag, its size in bytes, its snapshots' tags."""

    def __init__(self, volid: str, tag: str, size: int) -> None:
        self.volid = volid
        self.tag = tag
        self.size = size
        self.snapshots: dict[str, str] = {}

    @property
    def is_base(self) -> bool:
        return "/base-" in self.volid

    def as_json(self) -> dict[str, Any]:
        return {"tag": self.tag, "size": self.size, "snapshots": self.snapshots}


class Load:
    """The plugin in one long-running process, and what we own through it."""

    def __init__(self, seed: str, vmids: list[int]) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.vmids = vmids
        self.volumes: list[Volume] = []
        self.counts: Counter[str] = Counter()
        self.errors: list[str] = []
        self.made = 0
        self.plugin = subprocess.Popen(PLUGIN_COMMAND.split(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call(self, function: str, *arguments: object) -> Any:
        assert self.plugin.stdin is not None and self.plugin.stdout is not None
        print(json.dumps({"call": function, "args": arguments}), file=self.plugin.stdin, flush=True)
        answer = json.loads(self.plugin.stdout.readline())
        if "error" in answer:
            raise Died(answer["error"].strip())
        return answer["result"][0] if answer["result"] else None

    def run(self, seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            operation = self.random.choice(self._possible())
            try:
                operation()
                self.counts[operation.__name__] += 1
            except NothingSuits:
                pass
            except (Died, OSError, AssertionError) as error:
                self.errors.append(f"{operation.__name__}: {error}")
        return {
            "counts": self.counts,
            "errors": self.errors,
            "volumes": {volume.volid: volume.as_json() for volume in self.volumes},
        }

    def _possible(self) -> list[Callable[[], None]]:
        if not self.volumes:
            return [self.alloc]
        possible = [
            self.snapshot,
            self.rollback,
            self.snapshot_delete,
            self.rename,
            self.resize,
            self.template,
            self.free,
        ]
        return possible + ([self.alloc, self.clone] * 2 if len(self.volumes) < _MOST_VOLUMES else [self.free] * 3)

    def alloc(self) -> None:
        vmid = self.random.choice(self.vmids)
        volid = self.call("vdisk_alloc", STORAGE, vmid, "raw", None, 4096)
        assert self._tag_in(volid) == "", f"{volid} was given to us with somebody's data in it"
        volume = Volume(volid, "", 4 * _MIB)
        self.volumes.append(volume)
        self._mark(volume)

    def clone(self) -> None:
        source = self.random.choice(self.volumes)
        snapshot = self.random.choice([None, *source.snapshots])
        volid = self.call("vdisk_clone", source.volid, self.random.choice(self.vmids), snapshot)
        tag = source.tag if snapshot is None else source.snapshots[snapshot]
        assert self._tag_in(volid) == tag, f"{volid} is no clone of {source.volid}"
        volume = Volume(volid, tag, os.path.getsize(self._path(volid)))
        self.volumes.append(volume)
        self._mark(volume)

    def snapshot(self) -> None:
        volume = self._pick(lambda volume: not volume.is_base and len(volume.snapshots) < _MOST_SNAPSHOTS)
        self.made += 1
        name = f"snap{self.made}"
        self.call("volume_snapshot", volume.volid, name)
        volume.snapshots[name] = volume.tag
        self._mark(volume)

    def rollback(self) -> None:
        volume = self._pick(lambda volume: not volume.is_base and bool(volume.snapshots))
        name = self.random.choice(list(volume.snapshots))
        self.call("volume_snapshot_rollback", volume.volid, name)
        volume.tag = volume.snapshots[name]
        volume.size = os.path.getsize(self._path(volume.volid))
        self._check(volume)

    def snapshot_delete(self) -> None:
        volume = self._pick(lambda volume: bool(volume.snapshots))
        name = self.random.choice(list(volume.snapshots))
        self.call("volume_snapshot_delete", volume.volid, name, False)
        del volume.snapshots[name]

    def rename(self) -> None:
        volume = self._pick(lambda volume: not volume.is_base)
        volume.volid = self.call("rename_volume", volume.volid, self.random.choice(self.vmids), None)
        self._check(volume)

    def resize(self) -> None:
        volume = self._pick(lambda volume: not volume.is_base and volume.size < 32 * _MIB)
        self.call("volume_resize", volume.volid, volume.size + _MIB, False)
        volume.size += _MIB
        self._check(volume)

    def template(self) -> None:
        volume = self._pick(lambda volume: not volume.is_base and not volume.snapshots)
        volume.volid = self.call("vdisk_create_base", volume.volid)
        self._check(volume)

    def free(self) -> None:
        volume = self.random.choice(self.volumes)
        self._check(volume)
        self.call("vdisk_free", volume.volid)
        self.volumes.remove(volume)

    def _pick(self, suits: Callable[[Volume], bool]) -> Volume:
        """One of our volumes that suits the operation. Raises NothingSuits."""
        suitable = [volume for volume in self.volumes if suits(volume)]
        if not suitable:
            raise NothingSuits
        return self.random.choice(suitable)

    def _mark(self, volume: Volume) -> None:
        """Write a new tag, as a guest would write."""
        self.made += 1
        volume.tag = f"{self.seed}-{self.made}"
        descriptor = os.open(self._path(volume.volid), os.O_WRONLY)
        try:
            os.pwrite(descriptor, volume.tag.encode().ljust(TAG_LENGTH, b"\0"), 0)
        finally:
            os.close(descriptor)

    def _check(self, volume: Volume) -> None:
        found = self._tag_in(volume.volid)
        assert found == volume.tag, f"{volume.volid} has {found!r} where we wrote {volume.tag!r}"
        size = os.path.getsize(self._path(volume.volid))
        assert size == volume.size, f"{volume.volid} has {size} bytes where {volume.size} were asked for"

    def _tag_in(self, volid: str) -> str:
        return tag_in(self._path(volid))

    def _path(self, volid: str) -> str:
        return str(self.call("path", volid))


def main() -> None:
    seconds, seed, *vmids = sys.argv[1:]
    print(json.dumps(Load(seed, [int(vmid) for vmid in vmids]).run(float(seconds))))


if __name__ == "__main__":
    main()
