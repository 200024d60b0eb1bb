"""The dispatcher of this process: the whole backend, loaded when it is asked for. Loads no click."""

from __future__ import annotations

from collections.abc import Mapping

from pvedrbdstor.call import Call
from pvedrbdstor.errors import Error, InternalError
from pvedrbdstor.service.protocol import SupportsDispatch


class Broken:
    """Stands where the backend could not be loaded: answers every call with the reason."""

    def __init__(self, error: Error) -> None:
        self._error = error

    def dispatch(self, method: str, params: Mapping[str, object], call: Call, stream: int | None = None) -> object:
        raise self._error


def load() -> SupportsDispatch:
    """The dispatcher. Raises what stands in the way of loading it."""
    from pvedrbdstor.service.methods import Dispatcher

    return Dispatcher()


def load_or_explain() -> SupportsDispatch:
    """The dispatcher, or one that answers why there is none: Proxmox shows an answer to its user, an exit status not."""
    try:
        return load()
    except Error as error:
        return Broken(error)
    except Exception as error:
        return Broken(InternalError(where="loading the backend", detail=f"{type(error).__name__}: {error}"))
