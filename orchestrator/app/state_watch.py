"""The state server that we started ourselves, kept running: one that was killed, or ended on a full disk, comes back.

Every accepted write is on its disk, so nothing is lost by that; until it is back requests are answered 503 and workers
wait. Used by `server.py` for as long as requests are served.
"""

import anyio
import structlog

from orchestrator.domain.errors import Misconfigured
from orchestrator.state.embedded import EmbeddedServer

log = structlog.get_logger(__name__)
_LOOK_SECONDS = 0.5
_RETRY_SECONDS = 5.0


async def keep_running(server: EmbeddedServer) -> None:
    """Until cancelled. What keeps it from starting is told in the log, and tried again: a full disk may get space."""
    while True:
        await anyio.sleep(_LOOK_SECONDS)
        if server.running:
            continue
        log.error("state_server.ended", hint="it is started again; its own log is state/server.log in the data folder")
        try:
            await server.start()
        except (Misconfigured, OSError) as exc:
            hint = exc.hint if isinstance(exc, Misconfigured) else "check space and permissions of the data folder"
            log.error("state_server.not_started", problem=str(exc), hint=hint)
            await anyio.sleep(_RETRY_SECONDS)
        else:
            log.warning("state_server.started_again")
