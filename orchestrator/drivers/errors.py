"""Why an engine does not do what it was asked, where every driver says it in the same way."""

import errno

from orchestrator.domain.errors import PermanentError


class StaleFence(PermanentError):
    """A runtime of this name was last touched under a higher fence: somebody else acts now."""

    code = "lease_lost"


class ClaimTaken(PermanentError):
    """A runtime of this name exists with another spec."""

    code = "claim_taken"


NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
MAKE_SPACE = "make space on that disk, or delete conversations; then start again"


def says_no_space(words: str) -> bool:
    """Whether that is what the system says when a disk or a quota is full."""
    said = words.lower()
    return "no space left on device" in said or "disk quota exceeded" in said


class ImageUnavailable(PermanentError):
    """The engine does not have the image; nothing is pulled while somebody waits for a start."""

    code = "image_pull"


class StartRefused(PermanentError):
    """The engine made the runtime but could not start it; `details` may hold the last log lines."""

    code = "start_refused"
