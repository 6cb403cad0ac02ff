"""Webhooks of the native API: who is told of a tenant's conversations, and what became of each attempt.

They hear of all of a tenant's users, so only a tenant's own key reaches them.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field, StringConstraints

from orchestrator.api.answers import operations
from orchestrator.api.answers import webhooks as answers
from orchestrator.api.answers.declared import says
from orchestrator.api.auth import Owner, OwnerOf, ServicesOf
from orchestrator.api.conditions import ConditionOf, tell_version
from orchestrator.api.context import Services
from orchestrator.api.idempotency import NaturalIdOf
from orchestrator.api.json_values import NO_TRUTH
from orchestrator.api.lists import MOST, OLDEST_FIRST, IdsOf, Limit, SortOrder, uuids, whole
from orchestrator.api.paging import PagingOf
from orchestrator.api.schemas import Body
from orchestrator.domain.clock import rfc3339
from orchestrator.domain.errors import Forbidden
from orchestrator.domain.hooks import ATTEMPTS_KEPT, TENANT_LANE, Attempt, HookEndpoint, HookEvent
from orchestrator.domain.ids import HookId, parse_uuid
from orchestrator.domain.secrets import SecretText
from orchestrator.services.webhooks import Changes

router = APIRouter(prefix="/api/v2/webhooks", tags=["webhooks"])
Url = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
Description = Annotated[str, StringConstraints(max_length=1000)]
Events = Annotated[list[HookEvent], Field(max_length=50)]


class WebhookBody(Body):
    url: Url
    events: Events = Field(default_factory=list)
    """None or empty: all, also those of later versions."""
    description: Description = ""


class WebhookChange(Body):
    """What is absent stays."""

    url: Url | None = None
    events: Events | None = None
    description: Description | None = None
    enabled: bool | None = None


class Rotation(Body):
    overlap_seconds: Annotated[float, Field(ge=0, le=7 * 24 * 3600), NO_TRUTH] = 24 * 3600
    """For how long the last secret signs beside the new one; 0: not at all."""


async def tenant_itself(owner: OwnerOf) -> Owner:
    """A tenant's key that acts for no user. Raises `Forbidden`."""
    if owner.user is not None:
        raise Forbidden("webhooks are the tenant's: a user's key does not reach them", hint="use a key of the tenant")
    return owner


TenantOf = Annotated[Owner, Depends(tenant_itself)]


@router.post("", status_code=201, responses=says({201: answers.NewWebhook}))
async def create(
    body: WebhookBody, owner: TenantOf, services: ServicesOf, response: Response, natural_id: NaturalIdOf
) -> dict[str, Any]:
    """Make a webhook, once for each `Idempotency-Key`. Its secret is in this answer and nowhere else."""
    endpoint, secret = await services.webhooks.create(
        owner.tenant, body.url, body.events, body.description, natural_id=natural_id
    )
    response.headers["cache-control"] = "no-store"
    response.headers["location"] = f"/api/v2/webhooks/{endpoint.id}"
    return await webhook_out(services, endpoint, secret)


@router.get("", responses=says({200: answers.WebhookPage}))
async def list_webhooks(
    owner: TenantOf,
    services: ServicesOf,
    ids: IdsOf,
    paging: PagingOf,
    limit: Limit = MOST,
    sort_order: SortOrder = OLDEST_FIRST,
) -> dict[str, Any]:
    """The oldest first unless `sort_order` says otherwise."""
    page, following = whole(
        await services.webhooks.list(owner.tenant),
        lambda one: one.id,
        by=lambda one: f"{rfc3339(one.created_at)} {one.id}",
        ids=uuids(ids),
        paging=paging,
        limit=limit,
        sort_order=sort_order,
    )
    items = [None if one is None else await webhook_out(services, one) for one in page]
    return {"items": items, "next_page_id": following}


@router.get("/count", responses=says({200: operations.Count}))
async def count_webhooks(owner: TenantOf, services: ServicesOf) -> dict[str, Any]:
    """How many there are."""
    return {"count": len(await services.webhooks.list(owner.tenant)), "next_page_id": None}


@router.get("/{webhook}", responses=says({200: answers.Webhook}))
async def get(webhook: str, owner: TenantOf, services: ServicesOf, response: Response) -> dict[str, Any]:
    """One webhook, with how it does."""
    found = await services.webhooks.get(owner.tenant, _id(webhook))
    tell_version(response, found.version)
    return await webhook_out(services, found)


@router.patch("/{webhook}", responses=says({200: answers.Webhook}))
async def change(
    webhook: str,
    body: WebhookChange,
    owner: TenantOf,
    services: ServicesOf,
    response: Response,
    condition: ConditionOf,
) -> dict[str, Any]:
    """Change what is given. One that is enabled again begins anew, and is told that events are missing."""
    wanted = Changes(body.url, body.events, body.description, body.enabled)
    changed = await services.webhooks.change(owner.tenant, _id(webhook), wanted, condition=condition)
    tell_version(response, changed.version)
    return await webhook_out(services, changed)


@router.delete("/{webhook}", status_code=204)
async def delete(webhook: str, owner: TenantOf, services: ServicesOf, condition: ConditionOf) -> None:
    """Remove it with what waits for it."""
    await services.webhooks.delete(owner.tenant, _id(webhook), condition=condition)


@router.post("/{webhook}/rotate", responses=says({200: answers.NewWebhook}))
async def rotate(
    webhook: str,
    owner: TenantOf,
    services: ServicesOf,
    response: Response,
    condition: ConditionOf,
    body: Rotation | None = None,
) -> dict[str, Any]:
    """A new secret, in this answer and nowhere else; the one before it signs beside it for the overlap."""
    overlap = (body or Rotation()).overlap_seconds
    endpoint, secret = await services.webhooks.rotate(
        owner.tenant, _id(webhook), overlap_seconds=overlap, condition=condition
    )
    tell_version(response, endpoint.version)
    response.headers["cache-control"] = "no-store"
    return await webhook_out(services, endpoint, secret)


@router.post("/{webhook}/test", responses=says({200: answers.Delivery}))
async def test(webhook: str, owner: TenantOf, services: ServicesOf) -> dict[str, Any]:
    """Send one event now and say what came of it."""
    return attempt_out(await services.webhooks.test(owner.tenant, _id(webhook)))


@router.get("/{webhook}/deliveries", responses=says({200: answers.DeliveryPage}))
async def deliveries(
    webhook: str,
    owner: TenantOf,
    services: ServicesOf,
    ids: IdsOf,
    paging: PagingOf,
    limit: Limit = MOST,
) -> dict[str, Any]:
    """The last attempts, the latest first."""
    if ids is not None:
        asked = await services.webhooks.many_deliveries(owner.tenant, _id(webhook), ids)
        return {"items": [None if one is None else attempt_out(one) for one in asked], "next_page_id": None}
    found = await services.webhooks.deliveries(owner.tenant, _id(webhook), before=paging.after, limit=limit)
    following = found[-1].id if len(found) == limit else None
    return {"items": [attempt_out(item) for item in found], "next_page_id": paging.next(following)}


@router.get("/{webhook}/deliveries/count", responses=says({200: operations.Count}))
async def count_deliveries(webhook: str, owner: TenantOf, services: ServicesOf) -> dict[str, Any]:
    """How many attempts are kept: the last 200."""
    found = await services.webhooks.deliveries(owner.tenant, _id(webhook), before=None, limit=ATTEMPTS_KEPT)
    return {"count": len(found), "next_page_id": None}


@router.post("/{webhook}/redeliver", status_code=202, responses=says({202: answers.Redeliveries}))
async def redeliver_from(
    webhook: str,
    owner: TenantOf,
    services: ServicesOf,
    first: Annotated[int, Query(alias="from", ge=0, lt=2**63, description="A `sequence`")],
) -> dict[str, Any]:
    """Put every event that was told, from number `from` on, into the queue once more: in order, under the same event
    ids. The last 200 attempts are looked at; `complete` says whether those reach back so far."""
    told, complete = await services.webhooks.redeliver_from(owner.tenant, _id(webhook), first)
    return {
        "queued": len(told),
        "first_sequence": told[0].sequence if told else None,
        "last_sequence": told[-1].sequence if told else None,
        "complete": complete,
    }


@router.post("/{webhook}/deliveries/{delivery}/redeliver", status_code=202, responses=says({202: answers.Redelivery}))
async def redeliver(webhook: str, delivery: str, owner: TenantOf, services: ServicesOf) -> dict[str, Any]:
    """Put what that attempt was about into the queue once more, under the same event id."""
    found = await services.webhooks.redeliver(owner.tenant, _id(webhook), delivery)
    return {"event_id": found.event, "type": found.type, "state": "queued"}


def _id(text: str) -> HookId:
    return HookId(parse_uuid(text, "webhook"))


async def webhook_out(services: Services, endpoint: HookEndpoint, secret: SecretText | None = None) -> dict[str, Any]:
    """`secret` is shown in the answer that makes it."""
    standing = await services.webhooks.standing(endpoint)
    now = services.clock.now()
    return {
        "id": endpoint.id,
        "url": await services.webhooks.url(endpoint),
        "events": list(endpoint.events),
        "description": endpoint.description,
        "enabled": endpoint.enabled,
        "disabled_reason": endpoint.disabled_reason or None,
        "secrets": [
            {"number": one.number, "expires_at": rfc3339(one.expires_at) if one.expires_at else None}
            for one in endpoint.signing(now)
        ],
        "waiting": standing.waiting,
        "waiting_bytes": standing.waiting_bytes,
        "failures": standing.failures,
        "failing_since": _moment(standing.failing_since_ms),
        "next_attempt_at": _moment(standing.rests_until_ms) if standing.failures else None,
        "version": endpoint.version,
        "created_at": rfc3339(endpoint.created_at),
        "updated_at": rfc3339(endpoint.updated_at),
        **({"secret": secret.open()} if secret is not None else {}),
    }


def attempt_out(attempt: Attempt) -> dict[str, Any]:
    """One line of the delivery log."""
    return {
        "id": attempt.id,
        "event_id": attempt.event,
        "type": attempt.type,
        "sequence": attempt.sequence or None,
        "conversation_id": None if attempt.lane == TENANT_LANE else attempt.lane,
        "attempt": attempt.attempt,
        "state": attempt.outcome,
        "status": attempt.status,
        "problem": attempt.problem or None,
        "milliseconds": attempt.milliseconds,
        "at": rfc3339(attempt.at) if attempt.at is not None else None,
    }


def _moment(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(datetime.fromtimestamp(ms / 1000, UTC))
