"""The answer to the question of this room, as one JSON document: what files hold, beside what df has."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

from pvedrbdstor.call import Call
from pvedrbdstor.space.account import account
from pvedrbdstor.space.look import look
from pvedrbdstor.space.places import sets_of_files
from pvedrbdstor.volumes.store import Store


def report(store: Store, call: Call) -> dict[str, object]:
    """All of `account.Account`, and of the file system, in bytes: total, used (as df has it), available; itself: what is
    used and in no file's extents, less than nothing where files grew while they were looked at; changed: by how much
    used grew meanwhile. failed: [path, why] of what could not be looked into.
    """
    before = store.capacity()
    looked = look(store, call)
    count = max(1, len(looked.files))
    sets = sets_of_files([file.places for file in looked.files], partial(call.advance, count, count))
    after = store.capacity()
    used = after.total_bytes - after.free_bytes
    found = account(looked.files, sets)
    return {
        "file_system": after.name,
        "block": after.frsize,
        "total": after.total_bytes,
        "used": used,
        "available": after.available_bytes,
        "changed": before.free_bytes - after.free_bytes,
        **asdict(found),
        "itself": used - found.in_files,
        "failed": [list(failure) for failure in looked.failed],
    }
