"""`./dev demo`: works as promised, and says so when something does not."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.lab import demo
from tests.lab.assets import REPOSITORY
from tests.lab.backends import choose
from tests.lab.cluster import Cluster

MAIN_JOB = ["allocate", "list", "write", "snapshot", "write", "roll", "grow", "delete", "clone", "write", "free"]
GUEST = ["boot", "migrate", "lose", "go", "read"]


def test_demo_tells_its_story_and_ends_well() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.lab.demo"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=360,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    steps = re.findall(r"\[[AB]\] (\w+)", done.stdout)
    assert steps == MAIN_JOB + ([] if choose().kind == "tcg" else GUEST)
    assert done.stdout.endswith("all is well\n")


def test_demo_that_fails_says_what_failed_and_where_the_logs_are(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_story: demo.Story, _cluster: Cluster) -> None:
        demo.check(False, "both nodes read the same")

    monkeypatch.setattr(demo, "Cluster", lambda progress, memory: nullcontext(cluster))
    monkeypatch.setattr(demo, "tell", fail)
    assert demo.main() == 1
    said = capsys.readouterr().err
    assert "not so: both nodes read the same" in said
    found = re.search(r"Logs of both nodes: (\S+)", said)
    assert found is not None
    for name in ("a/console.log", "a/dmesg.txt", "b/drbd.txt", "b/storage.txt"):
        assert (Path(found[1]) / name).stat().st_size > 0
