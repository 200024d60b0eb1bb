"""What this node's copy asks DRBD's tools, and what it takes for no answer."""

from __future__ import annotations

import pytest

from pvedrbdstor import command
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.errors import CommandFailed, VerifyRefused
from pvedrbdstor.verify import copy

CONFIG = StorageConfig("ha", "/mnt/pve/ha", "r0")
SHOWN = (
    'resource r0 { _this_host { volume 0 { disk "/dev/a"; disk { read-balancing round-robin; } } } _remote_host { } }'
)


def test_where_drbd_reads_is_what_its_tools_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "run", lambda *_, **__: command.Result(0, SHOWN, ""))
    assert copy._options(CONFIG, "a").read_balancing == {0: "round-robin"}


@pytest.mark.parametrize("shown", ["", SHOWN.replace("r0", "r1"), None])
def test_that_drbd_reads_locally_is_never_assumed(monkeypatch: pytest.MonkeyPatch, shown: str | None) -> None:
    """`drbdsetup show` failed, or named another resource: its read-balancing is not known."""

    def run(*_: object, **__: object) -> command.Result:
        if shown is None:
            raise CommandFailed(command="drbdsetup show r0", status=10, output="no such resource")
        return command.Result(0, shown, "")

    monkeypatch.setattr(command, "run", run)
    with pytest.raises(VerifyRefused, match="on a does not tell whether DRBD reads from its peer"):
        copy._options(CONFIG, "a")
