"""How long something kept the event loop from everybody else: a call that blocks, or a machine that is too busy.

Everything of a replica shares one loop, but for the renewing of its leases (`lease_keeper.py`). A stall costs everybody
time; one of several leases costs the leases as well, whose late holder is refused (`Lease`). It should be seen.
"""

import anyio
import structlog

from orchestrator.telemetry import metrics

log = structlog.get_logger(__name__)
_PERIOD_SECONDS = 0.1
_TOLD_SECONDS = 1.0  # a stall that is worth a line


async def watch() -> None:
    """Until cancelled: how much later than it should this task's turn comes, ten times a second."""
    while True:
        due = anyio.current_time() + _PERIOD_SECONDS
        await anyio.sleep(_PERIOD_SECONDS)
        late = max(0.0, anyio.current_time() - due)
        metrics.LOOP_LATE_SECONDS.observe(late)
        if late >= _TOLD_SECONDS:
            log.warning("loop.stalled", seconds=round(late, 3))
