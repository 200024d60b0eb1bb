"""A command line whose dispatcher only records, with a storage.cfg and guests of its own."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pvedrbdstor import command
from pvedrbdstor.call import Call
from pvedrbdstor.cli.app import app
from pvedrbdstor.cli.session import Session
from pvedrbdstor.mirror import readers
from pvedrbdstor.verify import job, last
from tests.cli.comparing import Job

STORAGE_CFG = """\
dir: local
	path /var/lib/vz
	content iso,vztmpl

drbdocfs2: ha
	path /mnt/pve/ha
	drbdocfs2-resource r0
	content images,rootdir

drbdocfs2: off
	path /mnt/pve/off
	drbdocfs2-resource r1
	disable

drbdocfs2: elsewhere
	path /mnt/pve/elsewhere
	drbdocfs2-resource r2
	nodes b,c
"""

HA = {
    "id": "ha",
    "path": "/mnt/pve/ha",
    "resource": "r0",
    "volume": 0,
    "uuid": None,
    "images_dir": "images",
    "preallocation": None,
}


@dataclass
class Recorder:
    """Stands for the backend: keeps what it is asked, answers what the test laid down for a method.

    An answer that is an exception is raised; one that can be called is called with the Call.
    """

    answers: dict[str, Any] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    streams: list[int | None] = field(default_factory=list)

    def dispatch(self, method: str, params: Mapping[str, object], call: Call, stream: int | None = None) -> object:
        json.dumps(params)  # what goes to the dispatcher could go over the wire
        self.requests.append((method, dict(params)))
        self.calls.append(call)
        self.streams.append(stream)
        answer = self.answers.get(method)
        if isinstance(answer, BaseException):
            raise answer
        return answer(call) if callable(answer) else answer

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.requests]


@dataclass
class CommandLine:
    """Runs the program as `pvedrbdstor ARGUMENTS` would, in a cluster that is a folder.

    in_child: as it really is, each call in a process of its own; there the recorder records for nobody.
    """

    etc_pve: Path
    backend: Recorder
    in_child: bool = False

    def __call__(self, *arguments: str, input: str | bytes | None = None) -> Result:
        options = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
        session = Session(
            config_path=str(self.etc_pve / "storage.cfg"),
            make_dispatcher=lambda: self.backend,
            in_child=self.in_child,
            node="a",
        )
        return CliRunner(**options).invoke(app, list(arguments), input=input, obj=session, prog_name="pvedrbdstor")

    def guest(self, text: str, *, vmid: int = 100, node: str = "a", folder: str = "qemu-server") -> None:
        """Write a guest's configuration."""
        path = self.etc_pve / "nodes" / node / folder
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{vmid}.conf").write_text(text)


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    (tmp_path / "nodes" / "a").mkdir(parents=True)
    (tmp_path / "storage.cfg").write_text(STORAGE_CFG)
    return CommandLine(tmp_path, Recorder())


@pytest.fixture
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone sits there: questions are asked, progress is drawn."""
    monkeypatch.setattr("pvedrbdstor.cli.options.asks", lambda: True)
    monkeypatch.setattr("pvedrbdstor.cli.progress.watched", lambda: True)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Moments are printed in local time: make that the same everywhere."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Job:
    """`pvedrbdstor verify` with a comparison that is played, and records of its own."""
    found = Job()
    monkeypatch.setattr(last, "FOLDER", str(tmp_path / "last"))
    monkeypatch.setattr(readers, "FOLDER", str(tmp_path / "readers"))
    monkeypatch.setattr(job, "run", found.run)
    monkeypatch.setattr(job, "told", found.told.append)
    monkeypatch.setattr(command, "run", found.ssh)
    return found
