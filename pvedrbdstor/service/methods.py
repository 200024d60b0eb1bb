"""The methods of the wire: which call of Proxmox does what. One table for the service, the one-shot and the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager

from pvedrbdstor.call import Call
from pvedrbdstor.config import StorageConfig, relative_dir
from pvedrbdstor.errors import NotMounted, VolumeMissing
from pvedrbdstor.mirror.live import gate
from pvedrbdstor.mirror.mount import open_store as open_verified_mount
from pvedrbdstor.mirror.status import identity
from pvedrbdstor.service.params import Params
from pvedrbdstor.service.protocol import InvalidParams, MethodNotFound
from pvedrbdstor.volumes import (
    activation,
    failures,
    images,
    listing,
    recovery,
    renames,
    snapshots,
    survey,
    templates,
    transfer,
)
from pvedrbdstor.volumes.names import check_size
from pvedrbdstor.volumes.store import Store

OpenStore = Callable[[StorageConfig], AbstractContextManager[Store]]
BringUp = Callable[[StorageConfig, Call], None]
Method = Callable[[Store, Call, Params], object]
StreamMethod = Callable[[Store, Call, Params, int], object]


def _bring_up(config: StorageConfig, call: Call) -> None:
    """Loaded when it is needed: hardly any call does."""
    from pvedrbdstor.mirror.bringup.join import ensure_up

    ensure_up(config, call)


class Dispatcher:
    """Answers calls. ``open_store`` turns a configuration into an opened storage that was found to be the right one.

    ``bring_up`` is asked for a storage that is to be activated and is not mounted; it returns when it is.
    """

    def __init__(self, open_store: OpenStore = open_verified_mount, bring_up: BringUp = _bring_up) -> None:
        self._open_store = open_store
        self._bring_up = bring_up

    def dispatch(self, method: str, params: Mapping[str, object], call: Call, stream: int | None = None) -> object:
        """Do one call and return its result as a JSON value. Raises errors.Error, nothing else on purpose."""
        if method in STREAM_METHODS:
            if stream is None:
                raise InvalidParams(detail=f"'{method}' needs a stream: run it by 'pvedrbdstor rpc --stream'")
        elif method not in METHODS:
            raise MethodNotFound(method=method)
        config = StorageConfig.from_wire(params.get("storage"))
        if method == "status" and (seen := gate.status(config)) is not None:
            return seen
        gate.refuse_hopeless(config, method)
        try:
            with self._opened(config, method, call) as store:
                if stream is not None and method in STREAM_METHODS:
                    return STREAM_METHODS[method](store, call, Params(params), stream)
                return METHODS[method](store, call, Params(params))
        except OSError as error:
            raise failures.explain(error, config, method) from error

    @contextmanager
    def _opened(self, config: StorageConfig, method: str, call: Call) -> Iterator[Store]:
        """The storage; activation brings one that is not mounted up first."""
        with ExitStack() as stack:
            try:
                store = stack.enter_context(self._open_store(config))
            except NotMounted:
                if method != "activate_storage":
                    raise
                self._bring_up(config, call)
                store = stack.enter_context(self._open_store(config))
            yield store


def _activate_storage(store: Store, call: Call, params: Params) -> None:
    folders = [relative_dir(store.config.id, folder) for folder in params.texts("content_dirs")]
    activation.activate_storage(store, call, folders)


def _deactivate_storage(store: Store, call: Call, params: Params) -> None:
    """Nothing is to be undone: the mount stays."""


def _status(store: Store, call: Call, params: Params) -> dict[str, int | bool]:
    """Sizes in bytes as df(1) counts them; a storage that could be opened is active, any other is an error."""
    found = store.capacity()
    used = found.total_bytes - found.free_bytes
    return {"total": found.total_bytes, "avail": found.available_bytes, "used": used, "active": True}


def _alloc_image(store: Store, call: Call, params: Params) -> str:
    size = check_size(params.value("size_kib"), 1024)
    name = params.optional_text("name")
    return str(images.alloc_image(store, call, params.vmid(), params.text("format"), name, size))


def _free_image(store: Store, call: Call, params: Params) -> bool:
    """Whether there was something to free; with `missing_ok`, nothing to free is no error."""
    volume, missing_ok = params.volume(), params.flag("missing_ok")
    try:
        images.free_image(store, call, volume)
    except VolumeMissing:
        if not missing_ok:
            raise
        return False
    return True


def _list_images(store: Store, call: Call, params: Params) -> object:
    return listing.list_images(store, call, params.optional_vmid(), params.optional_texts("volids"))


def _volume_size_info(store: Store, call: Call, params: Params) -> object:
    return listing.size_info(store, call, params.volume())


def _volume_resize(store: Store, call: Call, params: Params) -> None:
    images.resize_image(store, call, params.volume(), check_size(params.value("size")))


def _create_base(store: Store, call: Call, params: Params) -> str:
    return str(templates.create_base(store, call, params.volume()))


def _clone_image(store: Store, call: Call, params: Params) -> str:
    return str(templates.clone_image(store, call, params.volume(), params.vmid(), params.optional_snapshot()))


def _rename_volume(store: Store, call: Call, params: Params) -> str:
    name = params.optional_text("target_name")
    return str(renames.rename_volume(store, call, params.volume(), params.vmid("target_vmid"), name))


def _volume_snapshot(store: Store, call: Call, params: Params) -> None:
    snapshots.create_snapshot(store, call, params.volume(), params.snapshot())


def _volume_snapshot_rollback(store: Store, call: Call, params: Params) -> None:
    snapshots.rollback(store, call, params.volume(), params.snapshot())


def _volume_snapshot_delete(store: Store, call: Call, params: Params) -> None:
    snapshots.delete_snapshot(store, call, params.volume(), params.snapshot())


def _volume_rollback_is_possible(store: Store, call: Call, params: Params) -> bool:
    snapshots.require_snapshot(store, params.volume(), params.snapshot())
    return True


def _volume_snapshot_info(store: Store, call: Call, params: Params) -> object:
    return snapshots.snapshot_info(store, call, params.volume())


def _space(store: Store, call: Call, params: Params) -> object:
    """Loaded when it is needed: only people ask."""
    from pvedrbdstor.space.report import report

    return report(store, call)


def _activate_volume(store: Store, call: Call, params: Params) -> None:
    volume = params.volume()
    activation.activate_volume(store, call, volume, params.optional_snapshot())
    with store.guest_of(volume) as guest_fd, store.image(guest_fd, volume) as fd:
        gate.refuse_newcomer(store.config, volume, gate.inode_of(fd))


def _volume_export(store: Store, call: Call, params: Params, stream: int) -> None:
    fmt, snap = params.text("format"), params.optional_snapshot()
    transfer.export_image(store, call, params.volume(), fmt, snap, params.flag("with_snapshots"), stream)


def _volume_import(store: Store, call: Call, params: Params, stream: int) -> str:
    fmt, with_snapshots = params.text("format"), params.flag("with_snapshots")
    made = transfer.import_image(store, call, params.volume(), fmt, with_snapshots, params.flag("allow_rename"), stream)
    return str(made)


METHODS: dict[str, Method] = {
    "activate_storage": _activate_storage,
    "activate_volume": _activate_volume,
    "alloc_image": _alloc_image,
    "clone_image": _clone_image,
    "create_base": _create_base,
    "deactivate_storage": _deactivate_storage,
    "free_image": _free_image,
    "get_identity": lambda store, call, params: identity(store.config),
    "list_images": _list_images,
    "recover": lambda store, call, params: recovery.recover(store, call),
    "rename_volume": _rename_volume,
    "space": _space,
    "status": _status,
    "survey": lambda store, call, params: survey.survey(store, call),
    "volume_resize": _volume_resize,
    "volume_rollback_is_possible": _volume_rollback_is_possible,
    "volume_size_info": _volume_size_info,
    "volume_snapshot": _volume_snapshot,
    "volume_snapshot_delete": _volume_snapshot_delete,
    "volume_snapshot_info": _volume_snapshot_info,
    "volume_snapshot_rollback": _volume_snapshot_rollback,
}

STREAM_METHODS: dict[str, StreamMethod] = {
    "volume_export": _volume_export,
    "volume_import": _volume_import,
}
