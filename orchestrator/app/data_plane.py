"""What carries the bytes: this process, or nginx beside it (`NESTOR_DATA_PLANE`).

With nginx the front listens on a socket that only nginx reaches, and beside it whoever answers decisions. All that
differs for `server.py` is here.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.app import nginx_child, nginx_plan
from orchestrator.app.nginx_child import Nginx
from orchestrator.app.nginx_plan import Plan
from orchestrator.proxy import decision
from orchestrator.proxy.context import FrontContext
from orchestrator.proxy.limits import FrontLimits
from orchestrator.settings import OrchestratorSettings

__all__ = ["Nginx", "carrying", "claimed"]


@asynccontextmanager
async def claimed(settings: OrchestratorSettings, limits: FrontLimits) -> AsyncIterator[Plan | None]:
    """The plan for nginx, its folders held and what a killed orchestrator left ended; None where there is to be none.

    Before the port is bound, which a leftover nginx may hold. Raises `Misconfigured`.
    """
    if settings.data_plane == "embedded":
        yield None
        return
    nginx_child.find_nginx()
    nginx_plan.find_modules()
    place = f"{settings.host}-{settings.port}".replace(":", "_")
    folder = settings.data_dir.absolute() / "nginx" / place  # replicas may share a data folder
    plan = Plan(
        folder,
        nginx_plan.run_folder(folder),
        domain=settings.domain,
        cached=settings.decision_cache,
        limits=limits,
    )
    async with nginx_child.claimed(plan):
        yield plan


@asynccontextmanager
async def carrying(nginx: Nginx, front: FrontContext, plan: Plan) -> AsyncIterator[None]:
    """Answer decisions and run nginx until leaving. Raises `Misconfigured` when it does not start."""
    deciding = await decision.listen(front, str(plan.decision))
    try:
        await nginx.start()
        running = asyncio.create_task(nginx.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await nginx.stop()
    finally:
        deciding.close()
