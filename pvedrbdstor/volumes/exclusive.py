"""To have guests for oneself: their locks, with nothing of an interrupted operation left in the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pvedrbdstor.call import Call
from pvedrbdstor.errors import RecoveryPending
from pvedrbdstor.volumes.locks import guest_lock
from pvedrbdstor.volumes.recovery import pending, recover
from pvedrbdstor.volumes.store import Store

_TRIES = 3


@contextmanager
def exclusive(store: Store, call: Call, *vmids: int) -> Iterator[tuple[int, ...]]:
    """Hold the locks of these guests, and only once no interrupted operation concerns them.

    Whoever works on a guest holds its lock, so an intent that is seen while we hold it is a dead one, and is dealt with
    before anything else happens to the guest. Raises LockTimeout, RecoveryPending.
    """
    with ExitStack() as stack:
        for _ in range(_TRIES):
            fds = stack.enter_context(guest_lock(store, call, *vmids))
            left = pending(store, vmids)
            if not left:
                yield fds
                return
            stack.close()
            recover(store, call)
        raise RecoveryPending(guests=" and ".join(str(vmid) for vmid in sorted(set(vmids))), what=left[0])
