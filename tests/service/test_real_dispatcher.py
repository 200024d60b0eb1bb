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
        assert freed.get("result", "missing") is None, freed
        assert backend.call("list_images", storage=storage, vmid=None, volids=None)["result"] == []
        assert backend.stop() == 0
    assert not list(reflink_dir.glob("images/100/*.raw"))
