"""Where a runtime that is a process keeps what is temporary: a folder with a short path.

`process_lifecycle.py` makes and removes these folders. Programs put sockets there, and the path of a socket may have
no more than 107 bytes; a runtime's own folder, with its long name, would use that up. The path follows from the name
alone, so that whoever destroys a runtime knows it without a record.
"""

import hashlib
import os
from pathlib import Path

_LONGEST = 60  # what is left is for the program: a folder and a name


class Temporaries:
    """The temporary folders of one data folder. `folder` is used unless its path is too long for sockets."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, name: str) -> Path:
        """The folder of the runtime of that name; not made here."""
        digest = hashlib.sha256(f"{self._folder}|{name}".encode()).hexdigest()[:12]
        usual = self._folder / digest
        if len(os.fsencode(usual)) <= _LONGEST:
            return usual
        # Made for its owner only, like all of them; somebody else's folder of this name makes the start fail.
        return Path("/tmp") / f"nestor-{digest}"  # noqa: S108
