"""A disk that stalls for seconds (of a machine that is shared) makes the state server late: calls are answered with 503
and Retry-After. Tests that are not about it come again, as clients do; each time is listed among the run's warnings."""

import warnings
from typing import Final

import httpx

TRIES: Final = 8
PAUSE_SECONDS: Final = 1.0
_PROBLEMS: Final = ("did not answer in time", "did not confirm in time")


def is_late(response: httpx.Response) -> bool:
    """Whether that, and nothing else, was in the way."""
    if response.status_code != 503:
        return False
    problem = response.json()
    late = problem.get("code") == "store_unavailable" and any(one in problem["detail"] for one in _PROBLEMS)
    if late:
        warnings.warn(f"the state server was late: {response.request.method} {response.request.url.path}", stacklevel=2)
    return late
