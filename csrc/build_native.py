"""Build of pvedrbdstor._native: cffi in API mode, named by cffi_modules in setup.py and run from the folder of setup.py."""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent

# Relative, and the folder of the build mapped away: the same sources give the same bytes wherever they are built.
SOURCES = [
    f"csrc/{name}.c"
    for name in (
        "blockdev",
        "digest",
        "digest_run",
        "digest_threads",
        "digest_uring",
        "extents",
        "files",
        "priority",
        "reflink",
    )
]
LIBRARIES = ["uring", "xxhash"]
MACROS = [("_GNU_SOURCE", "1"), ("_FILE_OFFSET_BITS", "64")]
FLAGS = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", f"-ffile-prefix-map={Path.cwd()}=."]

# cffi writes one wrapper a function; what it does not care about is forgiven there, and only there.
PREAMBLE = """
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#include "native.h"
"""

ffibuilder = FFI()
ffibuilder.cdef((HERE / "declarations.h").read_text())
ffibuilder.set_source(
    "pvedrbdstor._native",
    PREAMBLE,
    sources=SOURCES,
    depends=["csrc/native.h", "csrc/declarations.h", "csrc/digest.h"],
    include_dirs=["csrc"],
    libraries=LIBRARIES,
    define_macros=MACROS,
    extra_compile_args=FLAGS,
)
