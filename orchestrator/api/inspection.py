"""What the runtime of a conversation, or a bare one, uses, and what it printed."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query

from orchestrator.api import runtimes
from orchestrator.api.auth import OwnerOf, ServicesOf
from orchestrator.api.conversations import id_of

router = APIRouter(prefix="/api/v2", tags=["conversations"])


@router.get("/conversations/{conversation}/usage")
async def usage(conversation: str, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """What it uses at this moment: processor seconds since it started, memory, processes, and what workspace and
    state take on the disk (null where that cannot be told), each with its limit by the runtime's size. 409
    without a runtime, or with a driver that does not measure."""
    found = await services.conversations.get(owner.tenant, owner.user, id_of(conversation))
    return asdict(await services.inspection.usage(found))


@router.get("/conversations/{conversation}/logs")
async def logs(
    conversation: str, owner: OwnerOf, services: ServicesOf, lines: Annotated[int, Query(ge=1, le=1000)] = 100
) -> dict[str, Any]:
    """The last lines that the agent server printed, without any value that it was given. 409 without a runtime."""
    found = await services.conversations.get(owner.tenant, owner.user, id_of(conversation))
    return {"lines": list(await services.inspection.logs(found, lines=lines))}


@router.get("/runtimes/{runtime}/usage", tags=["runtimes"])
async def runtime_usage(runtime: str, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """As of a conversation's runtime."""
    found = await services.runtimes.get(owner.tenant, owner.user, runtimes.id_of(runtime))
    return asdict(await services.inspection.usage(found))


@router.get("/runtimes/{runtime}/logs", tags=["runtimes"])
async def runtime_logs(
    runtime: str, owner: OwnerOf, services: ServicesOf, lines: Annotated[int, Query(ge=1, le=1000)] = 100
) -> dict[str, Any]:
    """As of a conversation's runtime."""
    found = await services.runtimes.get(owner.tenant, owner.user, runtimes.id_of(runtime))
    return {"lines": list(await services.inspection.logs(found, lines=lines))}
