"""To have guests for oneself: their locks, with nothing of an interrupted operation left in the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pvedrbdstor.call import Call
from pvedrbdstor.errors import RecoveryPending
from pvedrbdstor.volumes.locks import guest_lock
from pvedrbdstor.volumes.names import VolumeName
from pvedrbdstor.volumes.recovery import pending, recover
from pvedrbdstor.volumes.store import Store

_TRIES = 3


@contextmanager
def exclusive(store: Store, call: Call, *vmids: int, freeing: VolumeName | None = None) -> Iterator[tuple[int, ...]]:
    """Hold the locks of these guests, and only once no interrupted operation concerns them.

    Whoever works on a guest holds its lock, so an intent that is seen while we hold it is a dead one, and is dealt with
    before anything else happens to the guest. Where it cannot be (a full file system), only a volume that it does not
    concern may still be freed: the one in ``freeing``. Raises LockTimeout, RecoveryPending.
    """
    with ExitStack() as stack:
        for attempt in range(_TRIES):
            fds = stack.enter_context(guest_lock(store, call, *vmids))
            left = pending(store, vmids)
            if attempt == _TRIES - 1 and freeing is not None:
                left = pending(store, vmids, freeing)
            if not left:
                yield fds
                return
            stack.close()
            recover(store, call)
        raise RecoveryPending(guests=" and ".join(str(vmid) for vmid in sorted(set(vmids))), what=left[0])
