"""How long something kept the event loop from everybody else: a call that blocks, or a machine that is too busy.

Everything of a replica shares one loop, the renewing of its leases too. A stall that is shorter than a lease costs
time; a longer one costs the leases, whose late holder is refused (`Lease`). Either way it should be seen.
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
