"""The page of messages reads them from the sources: what it makes of branches, helpers and values."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def reader() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "tools" / "message_texts.py"
    sys.path.insert(0, str(path.parent))  # for what lies beside it
    spec = importlib.util.spec_from_file_location("message_texts", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["message_texts"] = module
    spec.loader.exec_module(module)
    sys.path.remove(str(path.parent))
    return module


def told(reader: ModuleType, folder: Path, source: str) -> list[tuple[str, str | None, dict[str, str]]]:
    (folder / "room.py").write_text(source)
    return [
        (call.target, call.kind, call.texts)
        for module in reader.modules(folder)
        for call in reader.calls(module, {"Refused"})
    ]


def test_names_of_values_become_words(reader: ModuleType, tmp_path: Path) -> None:
    source = (
        "def f(config, node):\n    raise Refused(cause=f'{node} has no {config.resource}', remedy=f'Run {config.id!r}')"
    )
    assert told(reader, tmp_path, source) == [
        ("Refused", None, {"cause": "NODE has no RESOURCE", "remedy": "Run STORAGE"})
    ]


def test_each_branch_keeps_its_own_text_and_both_go_on(reader: ModuleType, tmp_path: Path) -> None:
    source = (
        "def f(a, b):\n"
        "    if a:\n        cause = 'one'\n        return Refusal(cause, 'do this')\n"
        "    if b:\n        cause = 'two'\n    else:\n        cause = 'three'\n"
        "    return Refusal(cause, 'do that' + (' now' if b else ''))"
    )
    assert told(reader, tmp_path, source) == [
        ("Refusal", None, {"cause": "one", "remedy": "do this"}),
        ("Refusal", None, {"cause": "(two | three)", "remedy": "do that[ now]"}),
    ]


def test_a_helper_says_where_it_ends_and_what_it_adds(reader: ModuleType, tmp_path: Path) -> None:
    source = (
        "TOLD = 'the manual'\n"
        "def split(cause):\n    return Finding(Kind.SPLIT_BRAIN, cause, f'Read {TOLD}', 3)\n"
        "def f(n):\n    yield split(f'{n + 1} copies')"
    )
    wanted = {"cause": "... copies", "remedy": "Read the manual"}
    assert told(reader, tmp_path, source)[-1] == ("Finding", "SPLIT_BRAIN", wanted)


def test_what_a_helper_is_given_is_in_its_text(reader: ModuleType, tmp_path: Path) -> None:
    source = (
        "def offline(config, change):\n    return f'Take {config.id} down, {change}, bring it up'\n"
        "def f(config):\n    return Refusal('it lacks it', offline(config, \"'tunefs -X'\"))"
    )
    wanted = {"cause": "it lacks it", "remedy": "Take STORAGE down, 'tunefs -X', bring it up"}
    assert told(reader, tmp_path, source) == [("Refusal", None, wanted)]


def test_a_finding_is_told_by_its_id_with_what_a_function_of_another_file_says(
    reader: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "beside.py").write_text(
        "PLACE = '/etc/x'\nSECONDS = 30.0\n"
        "def offline(change, then='on all'):\n    return f'Take it down, {change}, bring it up {then}'\n"
        "def size(n):\n    return f'{n // 2}' if n else ''"
    )
    source = (
        "from pvedrbdstor import beside\nfrom pvedrbdstor.beside import SECONDS, offline, size\n"
        "LACKS = Entry('it-lacks', (Severity.HINT,), 'it lacks it')\n"
        "def f(n):\n    yield LACKS.found(f'{beside.PLACE} has {size(n)} for {SECONDS:.0f} s', 'it is slow', offline(\"'tune'\"))"
    )
    wanted = {"cause": "/etc/x has ... for 30 s", "remedy": "Take it down, 'tune', bring it up on all"}
    assert ("found", "it-lacks", wanted) in told(reader, tmp_path, source)


def test_what_cannot_be_known_is_no_text(reader: ModuleType, tmp_path: Path) -> None:
    source = "def f(names):\n    raise Refused(cause=f'in use by {COMMA.join(names)}', remedy=look(names))"
    assert told(reader, tmp_path, source) == [("Refused", None, {"cause": "in use by ...", "remedy": "..."})]
