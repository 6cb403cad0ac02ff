"""Whether the disks that this runtime writes to have space left; `/server_info` tells those that have none."""

import os
from pathlib import Path

#: Less than this is none: an event would not fit.
LEAST_BYTES = 64 * 1024


def is_full(folder: Path) -> bool:
    """Whether nothing more can be written below it. One that cannot be looked at counts as not full."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < LEAST_BYTES or (bool(found.f_files) and found.f_favail == 0)
