"""The one importer of the C extension: its functions, and every failure an OSError with errno and path."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

from pvedrbdstor.errors import NativeMissing


class Extension(NamedTuple):
    ffi: Any
    lib: Any


@cache
def extension() -> Extension:
    """The C extension, loaded at its first use."""
    try:
        from pvedrbdstor._native import ffi, lib
    except ImportError as error:
        raise NativeMissing(detail=str(error)) from error
    return Extension(ffi, lib)


def call(function: Callable[..., int], path: str, *arguments: object) -> int:
    """Call ``function`` until no signal interrupts it; what it returns, or OSError for the -errno it returns."""
    while (result := function(*arguments)) == -errno.EINTR:
        pass
    if result < 0:
        raise OSError(-result, os.strerror(-result), path)
    return result


@contextmanager
def errors_name(path: str) -> Iterator[None]:
    """Let every OSError from inside name ``path``, not the part of it a call was made with."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
