"""A node for the monitor: doubles of DRBD's tools, of the mount and of storage.cfg, as files that a test changes."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pvedrbdstor.drbd.events2 import State, parse_events
from pvedrbdstor.mirror.live import storages
from pvedrbdstor.mirror.live.monitor import Monitor, Questions
from pvedrbdstor.mirror.live.view import View, read_view
from tests.drbd.support import output_of

PATIENCE = 5.0
CAPTURE = "8.4/04-mounted-both.a"
EVENTS = output_of(f"{CAPTURE}.txt", "drbdsetup events2") or ""
PROTECTED = re.sub(
    r"after-sb-\S+\s+\S+;",
    "",
    (output_of(f"{CAPTURE}.txt", "drbdsetup show") or "").replace(
        "c-plan-ahead", "fencing\tresource-and-stonith;\n\t\tc-plan-ahead"
    ),
)
HANDLER = 'resource r0 { handlers { fence-peer "/usr/lib/fence"; } }\n'
PEER = "peer-node-id:0 conn-name:peer"
CUT = (
    f"change connection name:r0 {PEER} connection:NetworkFailure role:Unknown\n"
    f"change peer-device name:r0 {PEER} volume:0 replication:Off peer-disk:DUnknown\n"
    f"change connection name:r0 {PEER} connection:Connecting\n"
)
BACK = (
    f"change connection name:r0 {PEER} connection:Connected role:Primary\n"
    f"change peer-device name:r0 {PEER} volume:0 replication:Established peer-disk:UpToDate\n"
)
GOOD_MOUNT = {"mounted": True, "read_only": False, "device": [147, 0], "sizes": {"total": 100, "avail": 60, "used": 40}}

_ENDED = ".ended"


class World:
    """One node with a healthy storage `ha`. tools: the folder of the doubles; live: the views'."""

    def __init__(self, folder: Path) -> None:
        self.tools, self.live, self._mounts = folder / "tools", folder / "live", folder / "mounts"
        self.storage_cfg, self.proc = folder / "storage.cfg", folder / "proc_drbd"
        for path in (self.tools, self._mounts):
            path.mkdir()
        double = Path(__file__).with_name("drbdsetup_double.py")
        for name in ("drbdsetup", "drbdadm"):
            shutil.copy(double, self.tools / name)
            (self.tools / name).chmod(0o755)
        self.configfs = folder / "configfs"
        (self.configfs / "pve" / "heartbeat").mkdir(parents=True)
        (self.configfs / "pve" / "heartbeat" / "dead_threshold").write_text("31\n")
        self.put_storages("ha")
        self.proc.write_text(output_of(f"{CAPTURE}.txt", "cat /proc/drbd") or "")
        (self.tools / "show").write_text(PROTECTED)
        (self.tools / "dump").write_text(HANDLER)
        self.stream(1, EVENTS)
        self.mount("ha", GOOD_MOUNT)
        self.monitor: Monitor | None = None

    def start(self, ask_mount: Callable[[Mapping[str, Any]], object] | None = None) -> Monitor:
        self.monitor = Monitor(
            str(self.live),
            node="a",
            questions=Questions(
                config=storages.read_text(str(self.storage_cfg)),
                mount=ask_mount or self._ask_mount,
                vendor_units=self._ask_vendor_units,
            ),
        )
        return self.monitor

    def end(self) -> None:
        """Stop, and let go of every probe that hangs."""
        self.stop()
        (self._mounts / _ENDED).touch()

    def stop(self) -> None:
        if self.monitor is not None:
            self.monitor.close()
            self.monitor = None

    def put_storages(self, *ids: str) -> None:
        self.storage_cfg.write_text(
            "\n".join(f"drbdocfs2: {id}\n\tpath /mnt/pve/{id}\n\tdrbdocfs2-resource r0\n" for id in ids)
        )

    def stream(self, number: int, text: str, now: bool = True) -> None:
        """What the stream of that number says next; a fresh look says the same unless ``now`` is false."""
        with (self.tools / f"stream.{number}").open("a") as file:
            file.write(text)
        if now:
            told = (self.tools / f"stream.{number}").read_text().replace("END\n", "")
            self.now(told)

    def now(self, events: str) -> None:
        """Let a fresh look show what these events add up to."""
        self._replace(self.tools / "now", snapshot(events))

    def starts(self) -> int:
        """How often the stream was started."""
        return len(list(self.tools.glob("started.*")))

    def mount(self, storage_id: str, answer: Mapping[str, object] | None) -> None:
        """What a probe of the mount answers from now on; None: nothing, it hangs."""
        path = self._mounts / storage_id
        if answer is None:
            path.unlink(missing_ok=True)
        else:
            self._replace(path, json.dumps(answer))

    def view(self, storage_id: str = "ha") -> View:
        return read_view(storage_id, str(self.live))

    def until(self, condition: Callable[[View], bool], storage_id: str = "ha") -> View:
        """Run the monitor until the view is as wanted. Fails after PATIENCE seconds."""
        deadline = time.monotonic() + PATIENCE
        while not condition(view := self.view(storage_id)):
            assert time.monotonic() < deadline, view
            self.run(0.02)
        return view

    def until_kind(self, kind: str, storage_id: str = "ha") -> View:
        return self.until(lambda view: view.verdict.kind.value == kind, storage_id)

    def run(self, seconds: float) -> None:
        assert self.monitor is not None
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.monitor.step(0.02)

    def _ask_vendor_units(self, _question: object = None) -> dict[str, bool]:
        count = self.storage_cfg.read_text().count("drbdocfs2:")
        with (self.tools / "vendor-units").open("a") as file:
            file.write(f"{count}\n")
        return {"asked": True}

    def _ask_mount(self, storage: Mapping[str, Any]) -> object:
        path = self._mounts / storage["id"]
        while not path.exists():
            if (self._mounts / _ENDED).exists():
                os._exit(0)
            time.sleep(0.02)
        return json.loads(path.read_text())

    @staticmethod
    def _replace(path: Path, text: str) -> None:
        new = path.with_suffix(".new")
        new.write_text(text)
        new.rename(path)


def snapshot(events: str) -> str:
    """What `events2 --now` prints after these events."""
    objects: dict[tuple[str, ...], dict[str, str]] = {}
    for event in parse_events(events.splitlines(keepends=True)):
        values = dict(event.values)
        key = (event.object, values.get("name", ""), values.get("peer-node-id", ""), values.get("volume", ""))
        if event.verb == "destroy":
            objects.pop(key, None)
        elif event.object in ("resource", "device", "connection", "peer-device"):
            objects.setdefault(key, {}).update(values)
    lines = [" ".join(["exists", key[0], *(f"{k}:{v}" for k, v in found.items())]) for key, found in objects.items()]
    text = "".join(f"{line}\n" for line in [*lines, "exists -"])
    assert _complete(text)
    return text


def _complete(text: str) -> bool:
    state = State()
    for event in parse_events(text.splitlines(keepends=True)):
        state.apply(event)
    return state.complete
