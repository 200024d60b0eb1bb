"""The C sources: they compile strictly, survive the sanitizers, agree with the kernel's headers, build reproducibly."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pvedrbdstor import native
from tests.loopback import Loopback

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
SOURCES = sorted(CSRC.glob("*.c"))
PROGRAM = CSRC / "handler" / "fence-peer.c"
DRIVER = Path(__file__).with_name("sanitize_driver.c")
STRICT = [
    "gcc",
    "-std=gnu11",
    "-D_GNU_SOURCE=1",
    "-D_FILE_OFFSET_BITS=64",
    f"-I{CSRC}",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wconversion",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Wformat=2",
]


def run(argv: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("source", [*SOURCES, PROGRAM], ids=lambda path: path.name)
def test_compiles_without_a_warning(source: Path, tmp_path: Path) -> None:
    built = run([*STRICT, "-O2", "-c", str(source), "-o", str(tmp_path / "out.o")])
    assert built.returncode == 0, built.stderr


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_has_no_globals(source: Path, tmp_path: Path) -> None:
    run([*STRICT, "-c", str(source), "-o", str(tmp_path / "out.o")], check=True)
    symbols = run(["nm", str(tmp_path / "out.o")], check=True).stdout
    kinds = {line.split()[-2] for line in symbols.splitlines()}
    # T, t: functions; r: constants; a variable would be one of B, b, C, D, d
    assert kinds <= {"T", "t", "r", "U"}, symbols


def declared() -> set[str]:
    return set(re.findall(r"\b((?:sys|digest)_\w+)\(", (CSRC / "declarations.h").read_text()))


def test_every_declared_function_is_run_by_the_driver() -> None:
    assert declared() == set(re.findall(r"\b((?:sys|digest)_\w+)\(", DRIVER.read_text()))


def build_driver(target: Path, *extra: str, sanitizers: str = "address,undefined") -> None:
    options = ["-g", "-O1", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    built = run([*STRICT, *options, *extra, *map(str, SOURCES), str(DRIVER), "-luring", "-lxxhash", "-o", str(target)])
    assert built.returncode == 0, built.stderr


def run_driver(driver: Path, folder: Path, device: str) -> subprocess.CompletedProcess[str]:
    options = {
        "ASAN_OPTIONS": "detect_leaks=1:exitcode=99",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": "halt_on_error=1:exitcode=99",
    }
    # -R: the thread sanitizer of gcc 12 wants its memory where a kernel that randomizes more than 28 bits may not put it
    return run(["setarch", "-R", str(driver), str(folder), device], env={**os.environ, **options}, timeout=60)


def test_sanitizers_find_nothing(tmp_path: Path, reflink_dir: Path, reflink_fs: Loopback) -> None:
    build_driver(tmp_path / "driver")
    result = run_driver(tmp_path / "driver", reflink_dir, reflink_fs.device)
    assert (result.returncode, result.stderr) == (0, "")


def test_sanitizers_would_find_an_overflow(tmp_path: Path, reflink_dir: Path, reflink_fs: Loopback) -> None:
    build_driver(tmp_path / "driver", "-DPLANT_OVERFLOW")
    result = run_driver(tmp_path / "driver", reflink_dir, reflink_fs.device)
    assert result.returncode == 99
    assert "AddressSanitizer: heap-buffer-overflow" in result.stderr


def test_the_thread_sanitizer_finds_nothing(tmp_path: Path, reflink_dir: Path, reflink_fs: Loopback) -> None:
    # It does not see the kernel as the other side of a ring: the threads alone.
    build_driver(tmp_path / "driver", "-DWITHOUT_IO_URING", sanitizers="thread")
    result = run_driver(tmp_path / "driver", reflink_dir, reflink_fs.device)
    assert (result.returncode, result.stderr) == (0, "")


def test_constants_are_the_kernel_s(tmp_path: Path) -> None:
    exported = re.compile(r"(FALLOC_|FS_IMMUTABLE|FIEMAP_|[A-Z0-9]+_MAGIC|[A-Z0-9]+_SUPER_MAGIC)")
    names = sorted(name for name in vars(native) if exported.match(name) and name != "OCFS2_SUPER_MAGIC")
    assert len(names) >= 12
    checks = "\n".join(f'_Static_assert({name} == {getattr(native, name):#x}ULL, "{name}");' for name in names)
    headers = "".join(f"#include <linux/{name}.h>\n" for name in ("falloc", "fiemap", "fs", "magic"))
    (tmp_path / "constants.c").write_text(f"{headers}{checks}\nint unused;\n")
    built = run(["gcc", "-Werror", "-c", str(tmp_path / "constants.c"), "-o", str(tmp_path / "out.o")])
    assert built.returncode == 0, built.stderr


def test_extents_are_unpacked_as_c_lays_them_out() -> None:
    ffi, _ = native.extension.extension()
    assert ffi.sizeof("struct native_extent") == native.extents._EXTENT.size
    assert [ffi.offsetof("struct native_extent", field) for field in native.Extent._fields] == [0, 8, 16, 24]


def build_in(folder: Path) -> bytes:
    """Build the extension from a copy of what the build needs, and give the file's bytes."""
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(CSRC, folder / "csrc", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "README.md").touch()
    (folder / "pvedrbdstor").mkdir()
    shutil.copy(ROOT / "pvedrbdstor" / "__init__.py", folder / "pvedrbdstor")
    built = run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=folder)
    assert built.returncode == 0, built.stderr
    (extension,) = (folder / "pvedrbdstor").glob("_native*")
    assert extension.name == "_native.abi3.so"
    return extension.read_bytes()


def test_builds_the_same_abi3_file_wherever_the_sources_are(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "a much longer name" / "two"]
    for folder in folders:
        folder.mkdir(parents=True)
    one, two = (build_in(folder) for folder in folders)
    assert str(tmp_path).encode() not in one
    assert one == two


def test_extension_uses_the_stable_abi_alone() -> None:
    # The functions of CPython that are not in its limited API begin with _Py; these few are part of the stable ABI.
    allowed = {"_Py_Dealloc", "_Py_NoneStruct", "_Py_TrueStruct", "_Py_FalseStruct"}
    extension = ROOT / "pvedrbdstor" / "_native.abi3.so"
    symbols = run(["nm", "-D", "--undefined-only", str(extension)], check=True).stdout
    private = set(re.findall(r"\b_Py\w+", symbols))
    assert private <= allowed
