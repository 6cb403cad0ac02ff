"""Whether a runtime that died starts again, and when. Pure rules, no I/O.

A restart makes a new generation over the kept workspace. Each within the window makes the next wait twice as long;
after the last one allowed the conversation fails with the reason of that death.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from orchestrator.domain.conversation import FAILURES_KEPT, Failure

_LONGEST_SECONDS = 60.0


class RestartPolicy(enum.StrEnum):
    NEVER = "never"
    ON_FAILURE = "on_failure"  #: out of memory, ended by itself or from outside, gone


@dataclass(frozen=True)
class Restarts:
    """At most `maximum` restarts within `window_seconds`, the first after `backoff_seconds`."""

    policy: RestartPolicy = RestartPolicy.NEVER
    maximum: int = 3
    window_seconds: float = 600.0
    backoff_seconds: float = 1.0

    def chosen(self, own: Mapping[str, Any]) -> "Restarts":
        """As a tenant, user or request chose (`limits.restart`, ...); never more restarts than these."""
        policy, maximum, window = own.get("restart"), own.get("restart_max"), own.get("restart_window_seconds")
        return replace(
            self,
            policy=RestartPolicy(policy) if policy in tuple(RestartPolicy) else self.policy,
            maximum=min(maximum, self.maximum) if isinstance(maximum, int) and maximum >= 0 else self.maximum,
            window_seconds=max(window, self.window_seconds)
            if isinstance(window, int | float) and window > 0
            else self.window_seconds,
        )

    def delay(self, failures: Sequence[Failure], now: datetime) -> float | None:
        """Seconds until the next restart after these earlier failures; None for no further one."""
        done = self.done(failures, now)
        if self.policy is RestartPolicy.NEVER or done >= min(self.maximum, FAILURES_KEPT):
            return None
        return float(min(_LONGEST_SECONDS, self.backoff_seconds * 2**done))

    def done(self, failures: Sequence[Failure], now: datetime) -> int:
        """Restarts within the window."""
        since = now - timedelta(seconds=self.window_seconds)
        return sum(failure.restarted and failure.at > since for failure in failures)
