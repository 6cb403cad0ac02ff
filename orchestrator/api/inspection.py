"""What the runtime of a conversation, or a bare one, uses, and what it printed."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from orchestrator.api import runtimes
from orchestrator.api.answers import contents
from orchestrator.api.answers.declared import says
from orchestrator.api.auth import OwnerOf, ServicesOf, StandingOf
from orchestrator.api.context import Services
from orchestrator.api.conversations import id_of
from orchestrator.domain.conversation import Conversation
from orchestrator.domain.errors import Conflict, NestorError, NotFound
from orchestrator.services.log_following import Said
from orchestrator.services.log_following import follow as following

log = structlog.get_logger(__name__)
_FOLLOWED = 'With `follow`: `lines` (`{"lines": [...], "gap": false}`) as they come, and `end`'
Lines = Annotated[int, Query(ge=1, le=1000)]
router = APIRouter(prefix="/api/v2", tags=["conversations"])


@router.get("/conversations/{conversation}/usage", responses=says({200: contents.Usage}))
async def usage(conversation: str, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """What it uses at this moment: processor seconds since it started, memory, processes, and what workspace and
    state take on the disk (null where that cannot be told), each with its limit by the runtime's size. 409
    without a runtime, or with a driver that does not measure."""
    found = await services.conversations.get(owner.tenant, owner.user, id_of(conversation))
    return asdict(await services.inspection.usage(found))


@router.get("/conversations/{conversation}/logs", responses=says({200: contents.Logs}, stream=_FOLLOWED))
async def logs(
    conversation: str,
    owner: OwnerOf,
    services: ServicesOf,
    standing: StandingOf,
    lines: Lines = 100,
    follow: bool = False,
) -> Any:
    """The last lines that the agent server printed, without any value that it was given. `live` false: it is gone, and
    these were kept of the latest that failed. 409 without either. `follow`: server-sent events, `lines` (with `gap`
    where some were missed) as they come, and `end` when this runtime is over."""

    async def load() -> Conversation:
        await standing.check()
        return await services.conversations.get(owner.tenant, owner.user, id_of(conversation))

    return await _logs(services, load, lines, follow=follow)


@router.get("/runtimes/{runtime}/usage", tags=["runtimes"], responses=says({200: contents.Usage}))
async def runtime_usage(runtime: str, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """As of a conversation's runtime."""
    found = await services.runtimes.get(owner.tenant, owner.user, runtimes.id_of(runtime))
    return asdict(await services.inspection.usage(found))


@router.get("/runtimes/{runtime}/logs", tags=["runtimes"], responses=says({200: contents.Logs}, stream=_FOLLOWED))
async def runtime_logs(
    runtime: str,
    owner: OwnerOf,
    services: ServicesOf,
    standing: StandingOf,
    lines: Lines = 100,
    follow: bool = False,
) -> Any:
    """As of a conversation's runtime."""

    async def load() -> Conversation:
        await standing.check()
        return await services.runtimes.get(owner.tenant, owner.user, runtimes.id_of(runtime))

    return await _logs(services, load, lines, follow=follow)


async def _logs(services: Services, load: Callable[[], Awaitable[Conversation]], lines: int, *, follow: bool) -> Any:
    found = await load()
    if not follow:
        said, live = await services.inspection.logs(found, lines=lines)
        return {"lines": list(said), "live": live}
    await services.inspection.printed(found, lines=1)  # a 409 is an answer, not a stream
    return StreamingResponse(
        _sse(following(services.inspection, load, lines=lines)),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _sse(said: AsyncGenerator[Said]) -> AsyncIterator[str]:
    async with aclosing(said):
        try:
            async for one in said:
                if one.lines:
                    told = {"lines": list(one.lines), "gap": one.gap}
                    yield f"event: lines\ndata: {json.dumps(told)}\n\n"
                elif not one.over:
                    yield ":\n\n"
        except (NotFound, Conflict):
            pass  # deleted meanwhile, or gone in the moment before the first look
        except NestorError as exc:  # its key ended, say
            log.warning("logs.not_followed", problem=exc.message)
            return  # without an end: whoever comes back is told by the status
        yield "event: end\ndata: {}\n\n"
