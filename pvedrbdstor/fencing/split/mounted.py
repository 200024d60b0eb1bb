"""The files of a mounted storage, asked through a process of its own: a file system that hangs is told, not waited for.

Each question is a small one, so that what is slow goes on for as long as it moves, and what hangs is given up soon.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pvedrbdstor import errors
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.drbd.metadata import Range
from pvedrbdstor.errors import Error, NotAnswering, SystemCallFailed
from pvedrbdstor.fencing.split import copies, files
from pvedrbdstor.fencing.split.manifest import Copied, copied_from
from pvedrbdstor.fencing.split.ranges import CHUNK, batched
from pvedrbdstor.fencing.split.side import FileState, file_from_json
from pvedrbdstor.mirror.helper import Helper
from pvedrbdstor.mirror.mount import open_mirror

SILENT_SECONDS = 10.0
"""After so long without an answer to one question the file system is said to hang."""
COPY_SECONDS = 120.0
"""The same of copying, which has to bring to the disk what it has written."""
_CLOSE_SECONDS = 1.0
_FILES, _FILES_SECONDS = 256, 1.0
"""An answer has at most so many files, and begins no other after so long."""
_DIGESTS_BYTES = 8 * CHUNK


class Mounted:
    """A context manager. Raises NotMounted, WrongMount, NotAnswering, SystemCallFailed, CommandFailed, CommandTimeout, OSError."""

    def __init__(self, config: StorageConfig, seconds: float | None = None) -> None:
        self._config = config
        self._seconds = SILENT_SECONDS if seconds is None else seconds
        self._helper = Helper(_Work(config).answer)
        self.read_only = False

    def __enter__(self) -> Mounted:
        try:
            self.read_only = self._ask({"ask": "open"}) is True
        except BaseException:
            self._helper.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._helper.busy is None and self._helper.ask(
            {"ask": "close"}
        ):  # or the mount would be in use a moment longer
            self._helper.wait(_CLOSE_SECONDS)
        self._helper.close()

    def walk(self, sure: Sequence[Range], perhaps: Sequence[Range] | None) -> Iterator[FileState]:
        """As files.walk() does."""
        found = self._ask({"ask": "walk", "sure": sure, "perhaps": perhaps})
        while found:
            yield from (file_from_json(file) for file in found)
            found = self._ask({"ask": "more"})

    def digests(self, wanted: Mapping[str, Sequence[Range]]) -> dict[str, tuple[str, ...]]:
        """As files.digests() does; a file that goes meanwhile is left out."""
        found: dict[str, list[str]] = {}
        gone: set[str] = set()
        for batch in batched(wanted, lambda _path, length, _new: length / _DIGESTS_BYTES, _DIGESTS_BYTES):
            answer = self._ask({"ask": "digests", "wanted": batch})
            for path in batch:
                found.setdefault(path, []).extend(answer.get(path, ()))
                gone.update(() if path in answer else (path,))
        return {path: tuple(values) for path, values in found.items() if path not in gone}

    def copy(self, path: str, folder: str, progress: copies.Progress) -> Copied:
        """As copies.copy_file() does."""
        answer = self._ask({"ask": "copy", "path": path, "folder": folder}, COPY_SECONDS)
        while answer["copied"] is None:
            progress(answer["read"])
            answer = self._ask({"ask": "copy on"}, COPY_SECONDS)
        progress(answer["read"])
        return copied_from(answer["copied"])

    def _ask(self, question: object, seconds: float | None = None) -> Any:
        if not self._helper.ask(question):
            raise self._failed("there is no process to ask it")
        seconds = self._seconds if seconds is None else seconds
        answer = self._helper.wait(seconds)
        if answer is None and self._helper.busy is not None:
            raise NotAnswering(storage=self._config.id, path=self._config.path, seconds=round(seconds))
        if answer is None or "error" in answer:
            raise self._failed(answer["error"] if answer is not None else "the process that asked it has ended")
        if "raised" in answer:
            kind, fields = answer["raised"]
            raise getattr(errors, kind)(**fields)
        if "system" in answer:
            raise OSError(*answer["system"])
        return answer["is"]

    def _failed(self, reason: str) -> SystemCallFailed:
        return SystemCallFailed(
            operation="Reading", path=self._config.path, reason=reason, remedy="Look at 'dmesg', and try again"
        )


class _Work:
    """In the helper's process."""

    def __init__(self, config: StorageConfig) -> None:
        self._config = config
        self._root = -1
        self._files: Iterator[FileState] = iter(())
        self._copying: Generator[int, None, Copied] | None = None

    def answer(self, question: Mapping[str, Any]) -> dict[str, object]:
        try:
            return {"is": self._do(question)}
        except Error as error:
            return {"raised": [error.kind, error.fields]}
        except OSError as error:
            name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
            return {"system": [error.errno, error.strerror, name]}

    def _do(self, question: Mapping[str, Any]) -> object:
        match question["ask"]:
            case "open":
                opened = open_mirror(self._config)
                self._root = opened.root_fd
                return opened.facts.read_only
            case "close":
                os.close(self._root)
            case "walk":
                self._files = files.walk(self._root, _ranges(question["sure"]), _perhaps(question["perhaps"]))
                return self._more()
            case "more":
                return self._more()
            case "copy":
                self._copying = copies.copying(self._root, question["path"], question["folder"])
                return self._copy_on()
            case "copy on":
                return self._copy_on()
            case _:
                return files.digests(self._root, {path: _ranges(parts) for path, parts in question["wanted"].items()})
        return None

    def _copy_on(self) -> dict[str, object]:
        """copied: None until the file is whole. read: bytes since the last answer."""
        assert self._copying is not None
        read = 0
        try:
            while read < _DIGESTS_BYTES:
                read += next(self._copying)
        except StopIteration as end:
            return {"read": read, "copied": asdict(end.value)}
        return {"read": read, "copied": None}

    def _more(self) -> list[dict[str, Any]]:
        """Empty at the end."""
        end = time.monotonic() + _FILES_SECONDS
        found: list[dict[str, Any]] = []
        for state in self._files:
            found.append(asdict(state))
            if len(found) >= _FILES or time.monotonic() >= end:
                break
        return found


def _ranges(value: Any) -> list[Range]:
    return [(int(start), int(length)) for start, length in value]


def _perhaps(value: Any) -> list[Range] | None:
    return None if value is None else _ranges(value)
