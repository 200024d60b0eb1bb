"""The parameters of a request, taken out one by one and checked: whatever is missing or of the wrong type is InvalidParams."""

from __future__ import annotations

from collections.abc import Mapping

from pvedrbdstor.service.protocol import InvalidParams
from pvedrbdstor.volumes.names import VolumeName, check_snapshot, check_vmid, parse_volume


class Params:
    """Typed access to the `params` of one request."""

    def __init__(self, data: Mapping[str, object]) -> None:
        self._data = data

    def text(self, key: str) -> str:
        value = self.optional_text(key)
        if value is None:
            raise InvalidParams(detail=f"'{key}' is missing")
        return value

    def optional_text(self, key: str) -> str | None:
        value = self._data.get(key)
        if value is not None and not isinstance(value, str):
            raise InvalidParams(detail=f"'{key}' is not text")
        return value

    def value(self, key: str) -> object:
        """As it came; the taker checks it."""
        if self._data.get(key) is None:
            raise InvalidParams(detail=f"'{key}' is missing")
        return self._data[key]

    def flag(self, key: str) -> bool:
        """True, false, or PVE's 0, 1 and nothing for them."""
        value = self._data.get(key)
        if value not in (None, True, False, 0, 1):
            raise InvalidParams(detail=f"'{key}' is neither true nor false")
        return bool(value)

    def texts(self, key: str) -> list[str]:
        value = self.optional_texts(key)
        return [] if value is None else value

    def optional_texts(self, key: str) -> list[str] | None:
        value = self._data.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InvalidParams(detail=f"'{key}' is not a list of texts")
        return value

    def volume(self) -> VolumeName:
        return parse_volume(self.value("volname"))

    def vmid(self, key: str = "vmid") -> int:
        return check_vmid(self.value(key))

    def optional_vmid(self, key: str = "vmid") -> int | None:
        return None if self._data.get(key) is None else self.vmid(key)

    def snapshot(self) -> str:
        return check_snapshot(self.value("snap"))

    def optional_snapshot(self) -> str | None:
        return None if self._data.get("snap") is None else self.snapshot()
