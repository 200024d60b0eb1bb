"""The application: its options, its commands (each loaded when it is used), and how errors leave it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from pvedrbdstor import __version__
from pvedrbdstor.cli import output
from pvedrbdstor.cli.interrupt import EXIT_STATUS
from pvedrbdstor.cli.session import DEFAULT_CONFIG, Session
from pvedrbdstor.errors import Error, InternalError

_COMMANDS = {
    "volume": ("pvedrbdstor.cli.volume:volume", "Work on disk images: list, make, grow, snapshot, clone, free."),
    "space": ("pvedrbdstor.cli.space:space", "Say who has the space, and what deleting frees."),
    "mirror": ("pvedrbdstor.cli.mirror:mirror", "Bring a storage up or down on this node, and say how it is."),
    "fencing": ("pvedrbdstor.cli.fencing:fencing", "Say who decides when the mirror breaks, and whether it can."),
    "split-brain": (
        "pvedrbdstor.cli.split_brain:split_brain",
        "Say what each side of a split brain has changed.",
    ),
    "verify": ("pvedrbdstor.cli.verify:verify", "Compare the copies of both nodes, block by block."),
    "metadata": ("pvedrbdstor.cli.metadata:metadata", "Keep what finds images on a disk whose file system is gone."),
    "doctor": ("pvedrbdstor.cli.doctor:doctor", "Say what is wrong, what it means and what helps."),
    "report": ("pvedrbdstor.cli.report:report", "Write one archive for a support request."),
    "setup": ("pvedrbdstor.cli.setup:setup", "Set a storage up on two nodes with nothing but disks: plan, apply."),
    "rpc": ("pvedrbdstor.cli.wire_commands:rpc", "Answer one JSON-RPC request from standard input."),
    "serve": ("pvedrbdstor.cli.wire_commands:serve", "Run the service that Proxmox's plugin talks to."),
    "monitor": ("pvedrbdstor.cli.monitor:monitor", "Watch the storages, as the service does."),
    "completion": ("pvedrbdstor.cli.completion:completion", "Print the completion script for your shell."),
}

# For the package's scripts and units, not for people: they work, and are not listed.
_HIDDEN = {"vendor-units": "pvedrbdstor.cli.vendor_units:vendor_units"}


class Application(click.Group):
    """The root of the commands. Loads a command's module when the command is used, and turns errors into exit statuses."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        where = _COMMANDS[cmd_name][0] if cmd_name in _COMMANDS else _HIDDEN.get(cmd_name)
        if where is None:
            return None
        module, _, name = where.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run and end the process: 0, the error's status, 2 for a wrong command line, 130 for Ctrl-C."""
        argv = list(sys.argv[1:] if args is None else args)
        if not standalone_mode:
            return super().main(argv, prog_name, complete_var, standalone_mode, **extra)
        sys.exit(self._status(argv, prog_name, complete_var, **extra))

    def _status(self, argv: list[str], prog_name: str | None, complete_var: str | None, **extra: Any) -> int:
        as_json = "--json" in argv
        try:
            status = super().main(argv, prog_name, complete_var, False, **extra)
            sys.stdout.flush()
        except Error as error:
            return _report(error, as_json)
        except click.Abort:  # click's word for Ctrl-C and for the end of input at a question
            return EXIT_STATUS
        except click.ClickException as error:
            return _report_usage(error, as_json)
        except BrokenPipeError:
            _forget_stdout()
            return 1
        except Exception as error:
            if not as_json:
                traceback.print_exc()
            where = "the command line"
            return _report(InternalError(where=where, detail=f"{type(error).__name__}: {error}"), as_json)
        return status if isinstance(status, int) else 0


def _report(error: Error, as_json: bool) -> int:
    output.print_error(error.message, kind=error.kind, code=error.code, exit_status=error.exit_status, as_json=as_json)
    return error.exit_status


def _report_usage(error: click.ClickException, as_json: bool) -> int:
    """A wrong command line: click's own words, which name the option and the help, or as JSON-RPC's invalid params."""
    if as_json:
        output.print_error(error.format_message(), kind="Usage", code=-32602, exit_status=error.exit_code, as_json=True)
    else:
        error.show()
    return int(error.exit_code)


def _forget_stdout() -> None:
    """The reader of our output has gone (`| head`): keep Python from complaining of it at exit."""
    sys.stdout = open("/dev/null", "w", encoding="utf-8")  # noqa: SIM115 - lives as long as the process


def _set_json(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Session).as_json = True


@click.group(
    cls=Application,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Examples:\n\n\b\n  pvedrbdstor volume list ha\n  pvedrbdstor volume alloc ha 100 32G\n"
    "  pvedrbdstor volume snapshot create ha:100/vm-100-disk-0.raw before-upgrade",
)
@click.version_option(__version__, prog_name="pvedrbdstor", message="%(prog)s %(version)s")
@click.option("--json", is_flag=True, expose_value=False, callback=_set_json, help="Print results and errors as JSON.")
@click.option("--config", metavar="PATH", default=None, hidden=True, help=f"Read PATH instead of {DEFAULT_CONFIG}.")
@click.pass_context
def app(ctx: click.Context, config: str | None) -> None:
    """Disk images on a DRBD mirror with OCFS2, the storage type `drbdocfs2` of Proxmox VE.

    For daily work use Proxmox's own tools (the GUI, qm, pct, pvesm): they know which guest uses which disk. This
    command works on the same volumes beneath them, for a look, for repair, and where there is no running Proxmox.

    A volume is called STORAGE:VMID/NAME, for example ha:100/vm-100-disk-0.raw.
    """
    session = ctx.ensure_object(Session)
    if config is not None:
        session.config_path = config
