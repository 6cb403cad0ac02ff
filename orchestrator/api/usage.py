"""What a tenant, or one of its users, uses now: what is counted for its limits."""

from typing import Any

from fastapi import APIRouter

from orchestrator.api import rendering
from orchestrator.api.answers import operations
from orchestrator.api.answers.declared import says
from orchestrator.api.auth import OwnerOf, ServicesOf
from orchestrator.services.admission import Starter

router = APIRouter(prefix="/api/v2", tags=["usage"])


@router.get("/usage", responses=says({200: operations.TenantUsage}))
async def get_usage(owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """How many runtimes the tenant has at this moment, or with a user's key (or `X-Act-As-User`) that user; how many
    starts wait; and how each limit stands. Starts are counted where their number in a minute is limited."""
    use = await services.admission.use(Starter(owner.tenant, None, owner.user, owner.caller.key))
    return rendering.use_out(use)
