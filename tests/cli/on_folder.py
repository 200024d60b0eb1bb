"""`python3 -m tests.cli.on_folder CONFIG ARGUMENTS`: the real command line on the real volumes, in a plain folder.

Only the opening differs: where the program demands the verified mirror, this takes the folder that CONFIG names.
"""

from __future__ import annotations

import os
import sys

from pvedrbdstor.cli.app import app
from pvedrbdstor.cli.session import Session
from pvedrbdstor.config import StorageConfig
from pvedrbdstor.service.methods import Dispatcher
from pvedrbdstor.volumes.store import Store


def open_folder(config: StorageConfig) -> Store:
    return Store(config, os.open(config.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


if __name__ == "__main__":
    session = Session(config_path=sys.argv[1], make_dispatcher=lambda: Dispatcher(open_folder))
    app.main(sys.argv[2:], prog_name="pvedrbdstor", obj=session)
