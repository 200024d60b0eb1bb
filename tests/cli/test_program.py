"""The program as a process: the quick ways, completion, help; nothing here needs a storage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pvedrbdstor import __version__
from pvedrbdstor.cli.app import app
from tests.cli.conftest import STORAGE_CFG, CommandLine

ROOT = Path(__file__).parents[2]


def _run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=os.environ | env, capture_output=True, text=True, timeout=60
    )


def test_version_is_printed() -> None:
    result = _run("-m", "pvedrbdstor", "--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"pvedrbdstor {__version__}\n", "")


@pytest.mark.parametrize("arguments", [["--version"], ["rpc"]], ids=lambda words: words[0])
def test_quick_ways_do_not_load_click(arguments: list[str]) -> None:
    program = (
        "import sys; from pvedrbdstor.cli import main\n"
        "try: main.main(sys.argv[1:])\n"
        "except SystemExit: print('click' in sys.modules, file=sys.stderr)"
    )
    assert _run("-c", program, *arguments).stderr.splitlines()[-1] == "False"


def test_group_is_listed_without_loading_its_commands() -> None:
    program = (
        "import sys; from pvedrbdstor.cli import main\n"
        "try: main.main(['--help'])\n"
        "except SystemExit: print('pvedrbdstor.cli.volume' in sys.modules, file=sys.stderr)"
    )
    assert _run("-c", program).stderr.splitlines()[-1] == "False"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(cli: CommandLine, shell: str) -> None:
    result = cli("completion", shell)
    assert result.exit_code == 0
    assert f"_PVEDRBDSTOR_COMPLETE={shell}_complete" in result.stdout


def test_bash_completes_commands(tmp_path: Path) -> None:
    result = _run(
        "-m", "pvedrbdstor", _PVEDRBDSTOR_COMPLETE="bash_complete", COMP_WORDS="pvedrbdstor volume re", COMP_CWORD="2"
    )
    assert result.stdout.split() == ["plain,resize", "plain,rename", "plain,recover"]


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("volume list", ["ha", "off", "elsewhere"]),
        ("volume info", ["ha:", "off:", "elsewhere:"]),
        ("space", ["ha", "off", "elsewhere"]),
    ],
    ids=str,
)
def test_shell_completes_storages_from_storage_cfg(tmp_path: Path, words: str, completed: list[str]) -> None:
    config = tmp_path / "storage.cfg"
    config.write_text(STORAGE_CFG)
    result = _run(
        "-m", "pvedrbdstor", _PVEDRBDSTOR_COMPLETE="bash_complete",
        COMP_WORDS=f"pvedrbdstor --config {config} {words} ", COMP_CWORD=str(3 + len(words.split())),
    )  # fmt: skip
    assert [line.partition(",")[2] for line in result.stdout.split()] == completed


def _commands(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        return [path]
    context = click.Context(command)
    found = [path]
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        found += _commands(child, (*path, name))
    return found


@pytest.mark.parametrize("path", _commands(app), ids=" ".join)
def test_every_command_has_help_with_a_summary(cli: CommandLine, path: tuple[str, ...]) -> None:
    result = cli(*path, "--help")
    assert result.exit_code == 0
    assert len(result.stdout.split("\n\n")) >= 3


@pytest.mark.parametrize(
    "path", [path for path in _commands(app) if path[:1] in (("volume",), ("space",))], ids=" ".join
)
def test_every_line_of_help_fits_a_terminal(cli: CommandLine, path: tuple[str, ...]) -> None:
    assert max(len(line) for line in cli(*path, "--help").stdout.splitlines()) <= 80


def test_reader_that_leaves_early_gets_no_complaint() -> None:
    result = subprocess.run(
        f"{sys.executable} -m pvedrbdstor completion bash | true; exit ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr


def test_rpc_answers_garbage_with_a_json_rpc_error() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pvedrbdstor", "rpc"], cwd=ROOT, input="garbage\n", capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert json.loads(result.stdout)["error"]["code"] == -32700
    assert result.returncode == 64


def test_serve_without_a_socket_says_how_to_name_one() -> None:
    result = _run("-m", "pvedrbdstor", "serve")
    assert result.returncode == 74
    assert "--socket" in result.stderr
