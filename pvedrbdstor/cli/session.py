"""What every command works with: the storages of storage.cfg, the dispatcher, and how to answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import click

from pvedrbdstor.call import Call
from pvedrbdstor.cli import backend, output
from pvedrbdstor.cli.interrupt import EXIT_STATUS, Interrupt
from pvedrbdstor.cli.progress import Progress
from pvedrbdstor.errors import BadConfig, BadName, CallerGone, Error
from pvedrbdstor.pve import storage_cfg
from pvedrbdstor.service.protocol import SupportsDispatch

DEFAULT_CONFIG = "/etc/pve/storage.cfg"
SHORT = 50.0  # seconds, as PVE's own calls: more means that the mirror hangs
LONG = 7 * 86400.0  # seconds, for work that copies data while someone watches: Ctrl-C ends it


@dataclass(frozen=True)
class Volume:
    """A volume as named on the command line, `STORAGE:VMID/NAME`."""

    storage: storage_cfg.Storage
    volname: str

    @property
    def volid(self) -> str:
        return f"{self.storage.config.id}:{self.volname}"

    @property
    def format(self) -> str:
        """`raw` or `qcow2`, by the name's ending, as PVE tells formats apart."""
        return self.volname.rpartition(".")[2]

    @property
    def path(self) -> str:
        """Where the image lies, for a guest's configuration that names it by its path."""
        config = self.storage.config
        return f"{config.path}/{config.images_dir}/{'/'.join(self.volname.split('/')[-2:])}"

    @property
    def owner(self) -> int:
        """The number of the guest it belongs to. Raises BadName."""
        vmid = self.volname.split("/")[-2] if "/" in self.volname else ""
        if not (vmid.isascii() and vmid.isdecimal()):
            raise BadName(what="volume", name=self.volid, detail=VOLID_FORM)
        return int(vmid)

    @property
    def is_base(self) -> bool:
        return self.volname.rpartition("/")[2].startswith("base-")


VOLID_FORM = "write STORAGE:VMID/NAME, for example ha:100/vm-100-disk-0.raw"


@dataclass
class Session:
    """One run of the program. in_child: calls run in a process of their own, which may hang without us."""

    config_path: str = DEFAULT_CONFIG
    as_json: bool = False
    make_dispatcher: Callable[[], SupportsDispatch] = backend.load
    in_child: bool = True
    node: str = field(default_factory=lambda: os.uname().nodename.partition(".")[0])

    @property
    def nodes_path(self) -> str:
        """The folder with the guests' configurations: `nodes`, beside storage.cfg."""
        return os.path.join(os.path.dirname(self.config_path) or ".", "nodes")

    def storage(self, storage_id: str, *, also_disabled: bool = False) -> storage_cfg.Storage:
        """The storage of that id, usable on this node. Raises BadConfig."""
        try:
            with open(self.config_path, encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError as error:
            raise BadConfig(
                storage=storage_id,
                detail=f"{self.config_path} cannot be read ({error.strerror}). "
                "On a Proxmox VE node, see that the cluster file system is up: 'systemctl status pve-cluster'",
            ) from error
        storage = storage_cfg.find_storage(text, storage_id)
        (replace(storage, disabled=False) if also_disabled else storage).check_usable_on(self.node)
        return storage

    def volume(self, volid: str) -> Volume:
        """The volume of that id, which need not exist. Raises BadName and BadConfig."""
        storage_id, colon, volname = volid.partition(":")
        if not colon or not storage_id or not volname:
            raise BadName(what="volume", name=volid, detail=VOLID_FORM)
        return Volume(self.storage(storage_id), volname)

    def call(
        self,
        method: str,
        storage: storage_cfg.Storage,
        params: Mapping[str, object],
        *,
        timeout: float = SHORT,
        label: str = "Working",
        stream: int | None = None,
        silence: float | None = None,
    ) -> Any:
        """Let the dispatcher do ``method`` within ``timeout`` seconds, with a progress bar called ``label``.

        ``silence``: seconds without progress after which it is given up before that, for work that takes as long as there
        is to do. In a process of its own alone.

        Ctrl-C makes the work undo itself and ends the program with 130, also where the work was done all the same.
        ``stream``: the descriptor to export to or import from. Raises whatever the method raises.
        """
        request = {"storage": asdict(storage.config), **params}
        with Interrupt() as interrupt, Progress(label) as progress:
            call = Call(method, storage.config.id, timeout=timeout, gone=interrupt.gone, progress=progress)
            try:
                result = self._dispatch(call, request, stream, interrupt, progress, silence)
            except Error as error:
                if not interrupt.asked:
                    raise
                output.say("interrupted; the work was undone." if isinstance(error, CallerGone) else error.message)
                raise click.exceptions.Exit(EXIT_STATUS) from None
            except KeyboardInterrupt:
                output.say(f"ended at once. 'pvedrbdstor volume recover {call.storage}' removes what may be left over.")
                raise
        if interrupt.asked:
            output.say("the work was already done when you interrupted it.")
            raise click.exceptions.Exit(EXIT_STATUS)
        return result

    def _dispatch(
        self,
        call: Call,
        request: Mapping[str, object],
        stream: int | None,
        interrupt: Interrupt,
        progress: Progress,
        silence: float | None,
    ) -> object:
        if self.in_child:
            from pvedrbdstor.cli import child

            return child.dispatch(self.make_dispatcher(), call, request, stream, interrupt, progress, silence)
        from pvedrbdstor.service.worker import finish

        try:
            return self.make_dispatcher().dispatch(call.method, request, call, stream=stream)
        finally:
            finish(call)

    def answer(self, document: object, text: str) -> None:
        """Print ``document`` as JSON, or ``text`` (which ends with a newline) for people."""
        if self.as_json:
            output.print_json(document)
        else:
            click.echo(text, nl=False)


pass_session = click.make_pass_decorator(Session, ensure=True)


def volid_of(storage: storage_cfg.Storage, volname: object) -> str:
    """The id of a volume that a method named in its answer."""
    return f"{storage.config.id}:{volname}"
