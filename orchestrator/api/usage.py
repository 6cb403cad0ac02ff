"""What a tenant, or one of its users, uses now and spent in a month: what is counted for its limits."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from orchestrator.api import rendering
from orchestrator.api.answers import operations
from orchestrator.api.answers.declared import says
from orchestrator.api.auth import OwnerOf, ServicesOf
from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.spending import MONTHS_KEPT, Month, month_of
from orchestrator.services.admission import Starter

router = APIRouter(prefix="/api/v2", tags=["usage"])


def _month(
    month: Annotated[
        str | None, Query(description=f"Such as 2026-03, in UTC: of the last {MONTHS_KEPT}; left out: the present one")
    ] = None,
) -> Month | None:
    if month is None:
        return None
    year, _, number = month.partition("-")
    digits = month.isascii() and year.isdigit() and number.isdigit()
    if not digits or (len(year), len(number)) != (4, 2) or not 1 <= int(number) <= 12 or not 1 <= int(year) <= 9998:
        raise InvalidRequest("month is not of the form 2026-03", field="month", hint="leave it out for the present one")
    return Month(int(year), int(number))


MonthOf = Annotated[Month | None, Depends(_month)]


@router.get("/usage", responses=says({200: operations.TenantUsage}))
async def get_usage(owner: OwnerOf, services: ServicesOf, month: MonthOf) -> dict[str, Any]:
    """How many runtimes the tenant has at this moment, or with a user's key (or `X-Act-As-User`) that user; how many
    starts wait; how each limit stands; and what was spent on models in a month, as runtimes told it. Starts are counted
    where their number in a minute is limited."""
    use = await services.admission.use(Starter(owner.tenant, None, owner.user, owner.caller.key))
    of = month or month_of(services.clock.now())
    return rendering.use_out(use, await services.store.spending.of(owner.tenant, owner.user, of), of)
