"""The real methods behind the real service, on a plain folder: the wire from one end to the other."""

from __future__ import annotations

from pathlib import Path

from tests.backend import start_backend
from tests.backend_any_folder import any_folder


def test_an_image_is_made_listed_and_freed_through_the_socket(reflink_dir: Path, tmp_path: Path) -> None:
    storage = {"id": "ha", "path": str(reflink_dir), "resource": "r0", "volume": 0, "images_dir": "images"}
    with start_backend(tmp_path, any_folder) as backend:
        assert "result" in backend.call("activate_storage", storage=storage, content_dirs=["images"])
        made = backend.call("alloc_image", storage=storage, vmid=100, format="raw", name=None, size_kib=1024)
        assert made.get("result") == "100/vm-100-disk-0.raw", made
        (listed,) = backend.call("list_images", storage=storage, vmid=None, volids=None)["result"]  # type: ignore[misc,attr-defined]
        assert (listed["volid"], listed["size"]) == ("ha:100/vm-100-disk-0.raw", 1 << 20)
        freed = backend.call("free_image", storage=storage, volname="100/vm-100-disk-0.raw", is_base=False)
        assert freed.get("result") is True, freed
        assert backend.call("list_images", storage=storage, vmid=None, volids=None)["result"] == []
        assert backend.stop() == 0
    assert not list(reflink_dir.glob("images/100/*.raw"))


def test_freeing_what_does_not_exist_is_an_error_unless_the_caller_says_otherwise(
    reflink_dir: Path, tmp_path: Path
) -> None:
    storage = {"id": "ha", "path": str(reflink_dir), "resource": "r0", "volume": 0, "images_dir": "images"}
    volume = {"storage": storage, "volname": "100/vm-100-disk-0.raw", "is_base": False}
    with start_backend(tmp_path, any_folder) as backend:
        made = backend.call("alloc_image", storage=storage, vmid=100, format="raw", name=None, size_kib=1024)
        assert made.get("result") == volume["volname"], made
        assert backend.call("free_image", **volume, missing_ok=True).get("result") is True
        assert backend.call("free_image", **volume, missing_ok=True).get("result") is False
        for strict in ({}, {"missing_ok": False}):
            error = backend.call("free_image", **volume, **strict)["error"]
            assert isinstance(error, dict) and error["data"]["kind"] == "VolumeMissing"
        wrong = backend.call("free_image", **volume, missing_ok="yes")["error"]
        assert isinstance(wrong, dict) and wrong["code"] == -32602
        assert backend.stop() == 0
