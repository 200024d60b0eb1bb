"""Every error this project raises on purpose: one hierarchy, one message style.

A class's docstring is its message: what happened, then what to do. Fields in braces are filled from the keyword
arguments. ``code`` is the stable number in a JSON-RPC error object, ``exit_status`` what a command line ends with.
Codes are never reused; a new error takes the next free number of its group.
"""

from __future__ import annotations


class Error(Exception):
    """{message}"""

    code: int = 1
    exit_status: int = 1

    def __init__(self, **fields: object) -> None:
        self.fields = fields
        super().__init__(self.message)

    @property
    def kind(self) -> str:
        """The class name: the stable word for this error, for logs and machines."""
        return type(self).__name__

    @property
    def message(self) -> str:
        return (type(self).__doc__ or "").format_map(self.fields)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.fields))


def _rebuild(cls: type[Error], fields: dict[str, object]) -> Error:
    return cls(**fields)


# --- 1..9: ourselves ---------------------------------------------------------------------------------------------


class InternalError(Error):
    """Unexpected failure in {where}: {detail}. This is a bug in pvedrbdstor: please report it with the log of pvedrbdstor.service."""

    code = 2
    exit_status = 70


class NativeMissing(Error):
    """The C extension of pvedrbdstor cannot be loaded: {detail}. Reinstall the package pvedrbdstor."""

    code = 3
    exit_status = 69


# --- 10..19: requests and names ----------------------------------------------------------------------------------


class BadRequest(Error):
    """Bad request: {detail}."""

    code = 10
    exit_status = 64


class BadName(Error):
    """'{name}' is not a valid {what}: {detail}."""

    code = 11
    exit_status = 64


class BadSize(Error):
    """{detail}."""

    code = 12
    exit_status = 64


class FormatNotOffered(Error):
    """Format '{format}' is not offered by storage '{storage}'. Use {offered}."""

    code = 13
    exit_status = 64


class NotSupported(Error):
    """{detail}."""

    code = 14
    exit_status = 64


class BadConfig(Error):
    """Storage '{storage}': {detail}."""

    code = 15
    exit_status = 78


# --- 20..39: volumes and snapshots -------------------------------------------------------------------------------


class VolumeMissing(Error):
    """Volume '{volume}' does not exist on storage '{storage}'. Check the name with 'pvesm list {storage}'."""

    code = 20
    exit_status = 66


class VolumeExists(Error):
    """Volume '{volume}' already exists on storage '{storage}'. Choose another name, or free it first."""

    code = 21
    exit_status = 73


class SnapshotMissing(Error):
    """Volume '{volume}' has no snapshot '{snapshot}' on storage '{storage}'. List them with 'pvedrbdstor volume snapshot list {storage}:{volume}'."""

    code = 22
    exit_status = 66


class SnapshotExists(Error):
    """Volume '{volume}' already has a snapshot '{snapshot}' on storage '{storage}'. Choose another name, or delete it first."""

    code = 23
    exit_status = 73


class BaseInUse(Error):
    """Base volume '{volume}' is still in use by {users}. Free those first, or make them independent with a full clone."""

    code = 24
    exit_status = 75


class Protected(Error):
    """Volume '{volume}' on storage '{storage}' is protected from removal. Lift the protection first."""

    code = 25
    exit_status = 77


class ReferencedByGuest(Error):
    """Volume '{volume}' is used by {users}. Do this through Proxmox (qm, pct or the GUI), or say {flag} if you know better."""

    code = 26
    exit_status = 75


class ShrinkRefused(Error):
    """Volume '{volume}' has {current} bytes; {wanted} bytes would cut off data. Volumes only grow: to shrink, copy to a new one."""

    code = 27
    exit_status = 64


class BadImage(Error):
    """'{volume}' is not a usable {format} image: {detail}."""

    code = 28
    exit_status = 65


class HasSnapshots(Error):
    """Volume '{volume}' has snapshots ({snapshots}). {remedy}."""

    code = 29
    exit_status = 75


class ReadOnlyVolume(Error):
    """Volume '{volume}' is a template and never changes. Clone it, and change the clone."""

    code = 30
    exit_status = 77


class StreamError(Error):
    """The data stream of '{volume}' is broken: {detail}. Nothing was kept; repeat the transfer."""

    code = 31
    exit_status = 65


class NoFreeName(Error):
    """Guest {vmid} already has {count} disks on storage '{storage}', which is the limit. Free some first."""

    code = 32
    exit_status = 73


class GuestsUnknown(Error):
    """Whether a guest uses volume '{volume}' cannot be told: {detail}. Is the cluster file system up ('systemctl status pve-cluster')? Say {flag} if you know that none does."""

    code = 33
    exit_status = 75


class RecoveryPending(Error):
    """An interrupted operation on guest {guests} ({what}) could not be finished or undone, so nothing else is done to it. Run 'pvedrbdstor volume recover STORAGE' and look at 'journalctl -u pvedrbdstor'; if another node has a newer pvedrbdstor, upgrade this one."""

    code = 34
    exit_status = 75


class ForeignFile(Error):
    """'{file}' on storage '{storage}' was not made by pvedrbdstor and is in the way. Move it away if it is of use, or remove it."""

    code = 35
    exit_status = 73


class ImageInUse(Error):
    """Volume '{volume}' is open in QEMU on node {node}. Shut the guest down first, or let Proxmox do this ('qm snapshot', 'qm disk resize')."""

    code = 36
    exit_status = 75


# --- 40..59: the file system and the mirror under it -------------------------------------------------------------


class NotMounted(Error):
    """Storage '{storage}': nothing is mounted on {path}. Run 'pvedrbdstor mirror up {storage}', which brings DRBD resource '{resource}' and its file system up."""

    code = 40
    exit_status = 69


class WrongMount(Error):
    """Storage '{storage}': {path} holds {found} where {expected} is expected. Nothing was touched. {remedy}."""

    code = 41
    exit_status = 69


class ReadOnlyStorage(Error):
    """Storage '{storage}': {path} is read-only. OCFS2 remounts itself read-only after an error: read the kernel log ('dmesg | grep -i ocfs2'), then unmount it on this node, check it and mount it again."""

    code = 42
    exit_status = 74


class StorageFull(Error):
    """Storage '{storage}' is full: {detail}. Free space first ('pvesm list {storage}')."""

    code = 43
    exit_status = 74


class NoReflink(Error):
    """Storage '{storage}': the file system on {path} cannot share blocks (reflink). OCFS2 needs the feature 'refcount': enable it with 'tunefs.ocfs2 --fs-features=refcount DEVICE' while it is unmounted everywhere."""

    code = 44
    exit_status = 69


class SystemCallFailed(Error):
    """{operation} of {path} failed: {reason}. {remedy}."""

    code = 45
    exit_status = 74


class NotOcfs2(Error):
    """'{device}' holds no usable OCFS2 file system: {detail}. Is it the right device? Look at 'blkid -p {device}'."""

    code = 46
    exit_status = 69


class LeftoversRemain(Error):
    """{count} leftovers on storage '{storage}' could not be dealt with and stay where they are. Run 'pvedrbdstor volume recover {storage}' again when the guests they belong to are not being worked on."""

    code = 47
    exit_status = 75


class BringUpRefused(Error):
    """Storage '{storage}' is not brought up: {cause}. {remedy}."""

    code = 48
    exit_status = 69


class BringUpFailed(Error):
    """Bringing up storage '{storage}' failed at the step '{step}': {detail}. Look at 'dmesg', and try again with 'pvedrbdstor mirror up {storage}'."""

    code = 49
    exit_status = 74


class CannotTakeDown(Error):
    """Storage '{storage}' cannot be taken down: {cause}. {remedy}."""

    code = 50
    exit_status = 75


class NotAnswering(Error):
    """Storage '{storage}': the file system on {path} does not answer (for {seconds} s). Is the mirror stalled? Look at 'cat /proc/drbd' or 'drbdadm status', and at 'dmesg'."""

    code = 52
    exit_status = 75


class NotUsable(Error):
    """Storage '{storage}' is {verdict} on node {node}. {cause} {remedy}."""

    code = 55
    exit_status = 69


class NotAdmitted(Error):
    """Storage '{storage}' is {verdict} on node {node}: only guests that were running here when that began may use it, and volume '{volume}' was in use by none of them. {cause} {remedy}."""

    code = 56
    exit_status = 75


class TypeStays(Error):
    """Storage '{storage}' stays of type '{type}': {cause}. {remedy}."""

    code = 57
    exit_status = 75


class SplitRefused(Error):
    """The split brain of storage '{storage}' is not resolved: {cause}. {remedy}."""

    code = 58
    exit_status = 75


class SplitStepFailed(Error):
    """Resolving the split brain of storage '{storage}' stopped at the step '{step}': {detail}. Run 'pvedrbdstor split-brain resolve {storage}' again: it goes on from there."""

    code = 59
    exit_status = 74


class SplitJournalBroken(Error):
    """The record of a split brain's resolution of storage '{storage}', {path}, cannot be read: {detail}. Look at it; 'pvedrbdstor split-brain resolve {storage} --abandon' puts it away and takes back what DRBD was told."""

    code = 51
    exit_status = 65


# --- 60..79: time and others -------------------------------------------------------------------------------------


class LockTimeout(Error):
    """{what} is busy: {holder}. Waited {seconds} s; try again when it has finished."""

    code = 60
    exit_status = 75


class DeadlineExceeded(Error):
    """'{method}' on storage '{storage}' did not finish within {seconds} s. Is the mirror stalled? Look at 'cat /proc/drbd' or 'drbdadm status', and at 'dmesg'."""

    code = 61
    exit_status = 75


class CallerGone(Error):
    """The caller of '{method}' has gone; the work was undone."""

    code = 62
    exit_status = 75


class TooBusy(Error):
    """{count} calls to storage '{storage}' still hang on it, so no more are started. Look at 'cat /proc/drbd' or 'drbdadm status', and at 'dmesg'."""

    code = 63
    exit_status = 75


class CommandFailed(Error):
    """'{command}' failed ({status}): {output}. Look at 'dmesg' if that does not say why."""

    code = 64
    exit_status = 74


class CommandTimeout(Error):
    """'{command}' did not finish within {seconds} s and was ended. Is the mirror stalled? Look at 'cat /proc/drbd' or 'drbdadm status', and at 'dmesg'."""

    code = 65
    exit_status = 75


class ServiceStopped(Error):
    """The pvedrbdstor service was stopped or restarted before '{method}' on storage '{storage}' had finished; what had been begun is undone, or finished where it is nearly done. Look at what is there ('pvesm list {storage}'), then try again."""

    code = 66
    exit_status = 75


class StillComingUp(Error):
    """Storage '{storage}' is still coming up ({step}, {seconds} s so far), which goes on by itself. Try again in a moment, or watch it with 'pvedrbdstor mirror status {storage}'."""

    code = 67
    exit_status = 75


# --- 80..89: comparing the copies ('pvedrbdstor verify' itself ends with 2 for any error) -------------------------------


class VerifyRefused(Error):
    """The copies of storage '{storage}' were not compared: {cause}. {remedy}."""

    code = 80
    exit_status = 69


class VerifyStopped(Error):
    """The comparison of the copies of storage '{storage}' was stopped: {cause}. {remedy}."""

    code = 81
    exit_status = 75


class WritePathUnchecked(Error):
    """The write path of storage '{storage}' was not checked to the end: {cause}. {remedy}."""

    code = 85
    exit_status = 69


# --- 90..94: setting a storage up ('pvedrbdstor setup') --------------------------------------------------------------------------


class SetupRefused(Error):
    """Storage '{storage}' is not set up: {cause}. {remedy}."""

    code = 90
    exit_status = 69


class SetupStepFailed(Error):
    """Setting up storage '{storage}' stopped on node {node} at the step '{step}': {detail}. {state} Look at what it says, then run 'pvedrbdstor setup apply {storage}' again: it goes on from there."""

    code = 91
    exit_status = 74


class SetupFileBroken(Error):
    """'{path}' cannot be read: {detail}. Look at it; 'pvedrbdstor setup plan --anew' puts it away and makes a new plan."""

    code = 92
    exit_status = 65


# --- 95..99: the backup of metadata ('pvedrbdstor metadata') ---------------------------------------------------------------------


class MetadataNotSaved(Error):
    """The metadata of storage '{storage}' were not saved: {cause}. {remedy}."""

    code = 95
    exit_status = 75


class MetadataBroken(Error):
    """This is no backup of metadata that can be relied on: {detail}. Run 'pvedrbdstor metadata list', and take another one."""

    code = 96
    exit_status = 65


class MetadataWithout(Error):
    """'{name}' is not in the map of '{path}'. Run 'pvedrbdstor metadata list' for a later set, if the disk was made later; write VMID/NAME, for example 100/vm-100-disk-0.raw."""

    code = 97
    exit_status = 66
