"""The map has every file where FIEMAP tells it to be, and the commands made from it give the file back from the device alone."""

from __future__ import annotations

import gzip
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvedrbdstor.errors import MetadataNotSaved
from pvedrbdstor.metadata import places
from pvedrbdstor.metadata.places import Placed, Run
from pvedrbdstor.metadata.script import script
from pvedrbdstor.metadata.sets import Broken
from pvedrbdstor.native import Extent
from pvedrbdstor.native.extents import FIEMAP_EXTENT_DATA_INLINE, FIEMAP_EXTENT_UNWRITTEN
from tests.loopback import Loopback

MIB = 1 << 20


def write_map(root: Path, path: Path) -> places.Written:
    fd = os.open(root, os.O_RDONLY)
    try:
        return places.write(fd, str(path), "ha", lambda done, total: None)
    finally:
        os.close(fd)


@pytest.fixture(scope="module")
def disk() -> Iterator[Loopback]:
    with Loopback(400, kind="xfs") as loop:
        folder = loop.path / "images" / "100"
        folder.mkdir(parents=True)
        with (folder / "sparse.raw").open("wb") as file:
            for at in (0, 5, 9):
                file.seek(at * MIB)
                file.write(os.urandom(MIB))
            file.truncate(12 * MIB + 512)
        subprocess.run(["cp", "--reflink=always", str(folder / "sparse.raw"), str(folder / "snapshot.raw")], check=True)
        with (folder / "sparse.raw").open("r+b") as file:
            file.seek(5 * MIB + 4096)
            file.write(os.urandom(MIB))
        with (folder / "reserved.raw").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 4 * MIB)
            file.seek(MIB)
            file.write(os.urandom(MIB))
        subprocess.run(["sync", "-f", str(folder)], check=True)
        yield loop


@pytest.mark.parametrize("name", ["sparse.raw", "snapshot.raw", "reserved.raw"])
def test_a_file_comes_back_from_the_device_alone(disk: Loopback, tmp_path: Path, name: str) -> None:
    written = write_map(disk.path, tmp_path / "map")
    assert (written.files, written.failed) == (3, [])
    placed = places.find(str(tmp_path / "map"), [f"images/100/{name}"])
    assert placed is not None and placed.whole
    commands = script(placed, 0.0, disk.device, str(tmp_path / "it's back"))
    subprocess.run(["sh", "-c", commands], check=True)
    assert (tmp_path / "it's back").read_bytes() == (disk.path / "images" / "100" / name).read_bytes()


def test_what_is_there_is_not_written_over(disk: Loopback, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    made = subprocess.run(
        ["sh", "-c", script(Placed("a", 4096, (Run(0, 0, 4096, False),)), 0.0, disk.device, str(target))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 1 and "is there already" in made.stderr
    assert target.read_text() == "mine"


def test_reserved_space_is_a_comment_and_nothing_goes_beyond_the_end() -> None:
    placed = Placed("a", 5000, (Run(0, 8192, 4096, True), Run(4096, 40960, 8192, False), Run(1 << 20, 0, 4096, True)))
    lines = [line for line in script(placed, 0.0, "/dev/x", "y").splitlines() if "dd if=" in line]
    assert [line.partition(" status=none ")[2] for line in lines] == [
        "skip=8192 seek=0 count=4096",
        "skip=40960 seek=4096 count=904",
    ]
    assert [line.startswith("#unwritten dd ") for line in lines] == [True, False]


def test_a_file_that_is_not_whole_says_so() -> None:
    runs, whole = places.merged([Extent(0, 0, 100, FIEMAP_EXTENT_DATA_INLINE)])
    assert (runs, whole) == ((), False)
    assert "NOT WHOLE" in script(Placed("a", 100, runs, whole), 0.0, "/dev/x", "y")


def test_runs_that_follow_each_other_in_both_places_are_one() -> None:
    extents = [Extent(0, 100, 10, 0), Extent(10, 110, 10, 0), Extent(20, 300, 10, 0), Extent(30, 310, 5, 0)]
    extents.append(Extent(35, 315, 5, FIEMAP_EXTENT_UNWRITTEN))
    runs, whole = places.merged(extents)
    assert whole and runs == (Run(0, 100, 20, False), Run(20, 300, 15, False), Run(35, 315, 5, True))


def test_a_map_too_large_to_keep_is_refused(disk: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MAP_MAX", 0)
    with pytest.raises(MetadataNotSaved, match="larger than"):
        write_map(disk.path, tmp_path / "map")


@given(st.binary(max_size=80) | st.text(max_size=60).map(lambda text: gzip.compress(text.encode("utf-8", "replace"))))
def test_any_bytes_are_a_map_or_called_broken(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("map") / "map.jsonl.gz"
    path.write_bytes(data)
    try:
        list(places.read(str(path)))
    except Broken as error:
        assert str(path) in str(error)


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_any_name_stays_one_line_of_comment(path: str, target: str) -> None:
    lines = script(Placed(path, 0, ()), 0.0, "/dev/x", f"/t/{target}".replace("\n", "")).splitlines()
    assert lines[1].startswith("# Copies ") and lines[2].startswith("# ")
