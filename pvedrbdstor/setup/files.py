"""Write a file whole or not at all, and only over what the plan has seen there. Files that are others', too, get their lines alone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping

from pvedrbdstor import command
from pvedrbdstor.errors import Error
from pvedrbdstor.files import sync_folder
from pvedrbdstor.setup import paths, templates
from pvedrbdstor.setup.steps import File, NotNow, digest

_SHARED = "/etc/pve/"  # pmxcfs has modes of its own
_DRBDADM_SECONDS = 20.0


def is_written(file: File, about: Mapping[str, str]) -> bool:
    """Whether all that is wanted is there. about: of the step. Raises OSError, NotNow as wanted() does."""
    present = content(file.path)
    return present == wanted(file, about, present)


def wanted(file: File, about: Mapping[str, str], present: str | None) -> str | None:
    """What the file is to hold now; None where it need not be. Of one that is shared with others: what is there, with our lines.

    Raises NotNow where our lines have no place in it.
    """
    if file.path == paths.FIREWALL:
        return None if present is None else templates.with_rules(present, _rules(file, about))
    if file.path == paths.LVM_CONF and "minor" in about:
        if present is None:
            return None
        found = templates.lvm_filtered(present, int(about["minor"]))
        if found is None:
            pattern = f'"r|^/dev/drbd{about["minor"]}$|"'
            raise NotNow(f"{file.path} has a global_filter that is not understood: put {pattern} first in it.")
        return found
    return file.content


def write(file: File, about: Mapping[str, str]) -> None:
    """Through symbolic links, keeping the mode and the owner of what is there. Raises NotNow where something else is there than when
    the plan was made, or drbdadm rejects it; OSError."""
    present = content(file.path)
    text = wanted(file, about, present)
    if text is None or present == text:
        return
    if text is file.content and (None if present is None else digest(present)) != file.before:
        raise NotNow(_CHANGED.format(path=file.path))
    if file.path.startswith(f"{paths.RESOURCES}/"):
        _accepted(file, present)
    path = os.path.realpath(file.path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    new = f"{path}.tmp.{os.getpid()}"
    try:
        with open(new, "w", encoding="utf-8", errors="surrogateescape", newline="") as out:
            out.write(text)
            out.flush()
            if not path.startswith(_SHARED):
                _as_before(out.fileno(), path, file.mode)
            os.fsync(out.fileno())
        os.rename(new, path)
    except BaseException:
        _remove(new)
        raise
    sync_folder(os.path.dirname(path))


def content(path: str) -> str | None:
    """None where there is none. Raises OSError."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return None


_CHANGED = (
    "{path} is not what it was when the plan was made, and was left alone. Compare it with what 'pvedrbdstor setup plan' has shown: where "
    "another storage or resource uses it, it has to stay, and a new plan goes by it."
)


def _rules(file: File, about: Mapping[str, str]) -> tuple[str, ...]:
    """Of cluster.fw, those of this resource, and OCFS2's."""
    names = (f"DRBD {about.get('resource')}", "OCFS2")
    lines = (line.strip() for line in file.content.splitlines())
    return tuple(line for line in lines if line.endswith(tuple(f"# pvedrbdstor: {name}" for name in names)))


def _as_before(fd: int, path: str, mode: int) -> None:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        os.fchmod(fd, mode)
        return
    os.fchown(fd, there.st_uid, there.st_gid)
    os.fchmod(fd, there.st_mode & 0o7777)


def _accepted(file: File, present: str | None) -> None:
    """A file that drbdadm does not read keeps it from every resource: it reads the new one from elsewhere first, beside all others."""
    if present is not None:
        raise NotNow(f"{file.path} is there already, and was left alone. Plan again with another '--resource'.")
    with tempfile.TemporaryDirectory(prefix="pvedrbdstor-setup-") as folder:
        new, conf = f"{folder}/new.res", f"{folder}/drbd.conf"
        with open(new, "w", encoding="utf-8", errors="surrogateescape") as out:
            out.write(file.content)
        there = os.path.exists(paths.DRBD_CONF)
        with open(conf, "w", encoding="utf-8") as out:
            out.write("".join(f'include "{path}";\n' for path in ((paths.DRBD_CONF,) if there else ()) + (new,)))
        try:
            command.run(["drbdadm", "-c", conf, "dump"], timeout=_DRBDADM_SECONDS)
        except Error as error:
            raise NotNow(f"{file.path} was not written, as drbdadm rejects it: {error.message}") from error


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
