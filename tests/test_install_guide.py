"""docs/install.md says what works: the real tools understand its files, and our own commands in it exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GUIDE = (ROOT / "docs" / "install.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
_CALLED = re.compile(r"^(?:pve1|pve2|both)# (.*?)(?: +#.*)?$", re.MULTILINE)
COMMANDS = [shlex.split(line) for block in BLOCKS for line in _CALLED.findall(block.replace("\\\n", " "))]
# in the text, too
OURS = [shlex.split(call) for call in re.findall(r"`(pvedrbdstor [^`]+)`", GUIDE)]
OURS += [words for words in COMMANDS if words[0] == "pvedrbdstor"]


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def block_with(word: str) -> str:
    (found,) = [block for block in BLOCKS if word in block]
    return found


def commands_of(program: str) -> list[list[str]]:
    return [words for words in COMMANDS if words[0] == program]


@pytest.mark.parametrize("host", ["pve1", "pve2"])
@pytest.mark.parametrize("generation", ["84", "9"])
def test_drbd_understands_the_resource_on_either_node(tmp_path: Path, host: str, generation: str) -> None:
    text = block_with("resource r0 {")
    program = "/lib/drbd/drbdadm-84"  # what drbdadm becomes when that module is loaded
    if generation == "9":  # as the guide says
        program = "drbdadm"
        text = text.replace("fencing resource-and-stonith; ", "").replace(
            "net {", "net { fencing resource-and-stonith;"
        )
    file = tmp_path / "r0.res"
    file.write_text(text)
    script = f'hostname {host}; exec {program} --config-file="$1" dump r0'
    said = run("unshare", "--uts", "sh", "-euc", script, "sh", str(file))
    for word in ("resource-and-stonith", "allow-two-primaries", "/dev/mirror/r0", "10.10.10.2:7789"):
        assert word in said


def test_o2cb_understands_the_cluster(tmp_path: Path) -> None:
    title, _, text = block_with("node_count").partition("\n")
    assert title == "# /etc/ocfs2/cluster.conf"
    file = tmp_path / "cluster.conf"
    file.write_text(text)
    listed = run("o2cb", f"--config-file={file}", "list-nodes", "pve")
    assert re.findall(r"name = (\S+)", listed) == ["pve1", "pve2"]
    assert re.findall(r"ip_address = (\S+)", listed) == ["10.10.10.1", "10.10.10.2"]


def test_the_file_system_can_be_made_and_tells_its_uuid(tmp_path: Path) -> None:
    ((program, *options),) = commands_of("mkfs.ocfs2")
    assert options[-1] == "/dev/drbd0"
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(4 << 30)  # sparse; smaller ones have no room for a journal of -T vmstore
    run(program, "-F", "-q", *options[:-1], str(disk))
    (ask,) = commands_of("tunefs.ocfs2")
    assert re.fullmatch(r"[0-9A-F]{32}", run(*ask[:-1], str(disk)).strip().removesuffix("\\n"))
    assert "refcount" in run("tunefs.ocfs2", "-Q", "%R%H%M", str(disk))


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_each_command_of_ours_exists_with_its_options(words: list[str]) -> None:
    command = [word for word in words[1:] if re.fullmatch(r"[a-z][a-z-]*", word) and word != "ha"]
    assert command or words[1:] == ["--version"]
    told = run(sys.executable, "-m", "pvedrbdstor", *command, "--help")
    assert [word for word in words if word.startswith("--") and word not in told] == []


def test_the_files_are_those_of_the_other_documents() -> None:
    """Who changes one of them changes all: docs/activation.md, docs/fencing.md."""
    activation = (ROOT / "docs" / "activation.md").read_text()
    for word in ("node_count", "O2CB_ENABLED", "resource r0 {"):
        title, _, text = block_with(word).partition("\n")
        lines = (text if title.startswith("#") else block_with(word)).replace("/dev/mirror/", "/dev/pve/")
        assert lines.strip() in activation
