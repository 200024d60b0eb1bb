"""Asking a node: what hangs or fails is told with its reason, and everything else is there all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor import command, native, nodes
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.doctor import guests, kernels, look, sources, storages, units
from pvedrbdstor.doctor.answers import Answers
from pvedrbdstor.doctor.facts import as_json
from pvedrbdstor.errors import CommandFailed
from tests.doctor.world import HA, node
from tests.drbd.support import output_of


def test_a_source_that_hangs_costs_its_deadline_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(_question: object) -> dict[str, object]:
        time.sleep(60)
        return {}

    monkeypatch.setattr(sources, "SECONDS", 2.0)
    monkeypatch.setattr(sources, "ask_o2cb", hangs)
    found = sources.gather("here", ())
    assert found.unread["o2cb_kernel"] == "it did not answer within 2 s"
    assert isinstance(found.values["release"], str) and "cluster_conf" not in found.values


def test_a_source_that_breaks_is_told_with_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_question: object) -> dict[str, object]:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(sources, "ask_network", breaks)
    assert sources.gather("here", ()).unread["addresses"] == "no such luck"


def test_a_bug_in_one_source_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one that is asked here, nor those of the same helper."""

    def bug(*_: object) -> dict[str, object]:
        raise KeyError("kind")

    monkeypatch.setattr(storages, "verdict", bug)
    monkeypatch.setattr(units, "states", bug)
    found = sources.gather("here", [HA])
    assert found.unread["verdict:ha"] == found.unread["units"] == "KeyError: 'kind'"
    assert "release" in found.values and "verify:ha" in found.values


def test_a_program_that_fails_gives_its_last_line() -> None:
    told = Answers()
    told.take("x", lambda: command.run(["sh", "-c", "echo one >&2; echo two. >&2; exit 3"], timeout=5))
    told.take("y", lambda: command.run(["/no/such/program"], timeout=5))
    assert told.unread["x"].endswith("failed: two") and "No such file" in told.unread["y"]


def test_without_the_module_drbds_tools_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "text_of", lambda path: None)
    monkeypatch.setattr(sources, "_output", lambda argv: pytest.fail("asked"))
    found: Any = sources.ask_drbd(["r0"])
    assert found["values"] == {
        "proc_drbd": None,
        "show": None,
        "dump": None,
        "adjust": {},
        "events": None,
        "drbd_version": None,
        "answers": None,
    }


def test_a_kernel_that_is_installed_and_lacks_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("vmlinuz-6.99.0-x", "initrd.img-6.99.0-x", "vmlinuz-6.9.0-x"):
        (tmp_path / name).touch()
    monkeypatch.setattr(kernels, "BOOT", str(tmp_path))
    found = kernels.installed_kernels()
    assert [kernel["release"] for kernel in found if not kernel["running"]] == ["6.9.0-x", "6.99.0-x"]
    assert all(
        kernel["missing"] == list(kernels.NEEDED) and kernel["drbd"] is None
        for kernel in found
        if not kernel["running"]
    )
    assert [kernel["release"] for kernel in found if kernel["running"]] == [os.uname().release]


def test_guests_are_told_by_their_volumes_and_never_by_their_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "nodes" / "a" / "qemu-server"
    folder.mkdir(parents=True)
    (folder / "100.conf").write_text(
        "cipassword: hunter2\ndescription: ha:999/vm-999-disk-0.raw\nscsi0: ha:100/vm-100-disk-0.raw,size=4G\n"
        "ide2: local:iso/x.iso,media=cdrom\n\n[before]\nscsi0: old:50/base-50-disk-0.raw/100/vm-100-disk-1.qcow2\nvmstate: ha:100/vm-100-state-before.raw\n"
    )
    found: Any = guests.ask_guests({"nodes": str(tmp_path / "nodes"), "path": "/mnt/o", "ids": ["ha", "old"]})
    told = found["values"]["guests:ha"]
    assert "hunter2" not in json.dumps(told)
    assert told["vmids"] == [100]
    assert [(line["key"], line["volume"]) for line in told["named"]] == [
        ("scsi0", "100/vm-100-disk-0.raw"),
        ("scsi0 in before", "100/vm-100-disk-1.qcow2"),
        ("vmstate in before", "100/vm-100-state-before.raw"),
    ]
    assert [drive["key"] for drive in told["drives"]] == ["scsi0"]


def test_the_folder_of_a_mount_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absent, empty, and filled; whether it is immutable where the file system can tell."""
    config = StorageConfig(id="ha", path=str(tmp_path / "ha"), resource="r0")
    wire = {"id": config.id, "path": config.path, "resource": "r0"}

    def folder() -> Any:
        found: Any = storages.ask_folder(wire)
        return found["values"]["folder:ha"]

    assert folder() == {"mounted": False, "there": False}
    (tmp_path / "ha" / "dump").mkdir(parents=True)
    monkeypatch.setattr(native, "inode_flags", lambda fd, path: native.FS_IMMUTABLE_FL)
    assert folder() == {"mounted": False, "there": True, "immutable": True, "count": 1, "names": ["dump"]}


def test_another_nodes_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its facts, with this node's clock around them; or why there are none."""
    printed = json.dumps(as_json(node("b")))
    monkeypatch.setattr(nodes, "line", lambda name, words, alive=None: ["printf", "%s", printed])
    answer = look._ask({"node": "nodeb", "storages": ["ha"]})
    told = look._told(answer)
    assert (
        not isinstance(told, str)
        and told.name == "nodeb"
        and told.asked is not None
        and told.asked <= (told.heard or 0)
    )
    monkeypatch.setattr(
        nodes, "line", lambda name, words, alive=None: ["sh", "-c", "echo no route to host >&2; exit 255"]
    )
    assert look._told(look._ask({"node": "nodeb", "storages": []})) == "no route to host"
    monkeypatch.setattr(nodes, "line", lambda name, words, alive=None: ["echo", "Usage: pvedrbdstor"])
    assert "no JSON" in str(look._told(look._ask({"node": "nodeb", "storages": []})))
    assert look._told(None) == "it did not answer in time"


def test_peers_are_those_of_the_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    dump = str(node("a").values["dump"])
    monkeypatch.setattr(command, "run", lambda argv, **_: command.Result(0, dump, ""))
    peers = look.peers_of("nodea", [HA])
    assert (peers.names, peers.unknown) == (("nodeb",), {})

    def fails(argv: list[str], **_: object) -> command.Result:
        raise CommandFailed(command="drbdadm dump", status="exit status 1", output="no")

    monkeypatch.setattr(command, "run", fails)
    seen = look.look("nodea", [HA], "/does/not/exist", {}, look.peers_of("nodea", [HA]))
    assert [(name, "'drbdadm dump' failed: no" in why) for name, why in seen.silent.items()] == [
        ("the other node", True)
    ]


def test_the_other_node_is_asked_before_what_is_for_this_one_is_loaded() -> None:
    """Loading that takes as long as a login."""
    script = """import sys
import pvedrbdstor.cli.app, pvedrbdstor.cli.doctor, pvedrbdstor.doctor.look
print(sorted(name for name in sys.modules if name in ("pvedrbdstor.doctor.sources", "pvedrbdstor.doctor.checks")))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_tiebreaker_without_a_disk_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no copy and need not have pvedrbdstor: that it does not answer is nothing wrong."""
    dump = output_of("written/diskless-third-node.9.txt", "drbdadm dump") or ""
    monkeypatch.setattr(command, "run", lambda argv, **_: command.Result(0, dump, ""))
    both = [HA, StorageConfig(id="b", path="/mnt/b", resource="r4")]
    assert look.peers_of("nodea", both).names == ("nodeb",)
    assert look.peers_of_any_storage("nodea").names == ("nodeb",)
    assert look.peers_of("nodea", [StorageConfig(id="c", path="/mnt/c", resource="r3", volume=1)]).names == (
        "nodeb",
        "nodec",
    )


def test_units_are_told_by_their_properties(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where systemd runs; as `systemctl show` prints them, a paragraph each."""
    text = "Id=a.service\nLoadState=loaded\nActiveState=failed\n\nId=b.timer\nLoadState=masked\n\nnonsense\n"
    monkeypatch.setattr(command, "run", lambda argv, **_: command.Result(0, text, ""))
    monkeypatch.setattr(units, "_RUNS", str(tmp_path))
    assert units.states() == {
        "a.service": {"LoadState": "loaded", "ActiveState": "failed"},
        "b.timer": {"LoadState": "masked"},
    }
    monkeypatch.setattr(units, "_RUNS", str(tmp_path / "no"))
    assert units.states() is None


def test_a_node_without_fsck_tells_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "PATH", str(tmp_path))
    found: Any = sources.ask_system()
    assert found["values"]["fsck"] is None and "fsck" not in found["unread"]


@given(st.text())
def test_any_words_of_systemctl(text: str) -> None:
    assert all(name for name, _ in units.parse(text))
