"""What callers call their conversations and bare runtimes: a title and labels, changed in every phase."""

from typing import Any

from fastapi import APIRouter, Response

from orchestrator.api import schemas
from orchestrator.api.acceptance import rendered
from orchestrator.api.answers import records
from orchestrator.api.answers.declared import says
from orchestrator.api.auth import OwnerOf, ServicesOf
from orchestrator.api.conditions import IfMatch, etag, version_in
from orchestrator.domain.ids import ConversationId, parse_uuid

router = APIRouter(prefix="/api/v2")


@router.patch("/conversations/{conversation}", responses=says({200: records.Conversation}), tags=["conversations"])
async def describe_conversation(
    conversation: str,
    body: schemas.DescriptionBody,
    owner: OwnerOf,
    services: ServicesOf,
    response: Response,
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Give it another title, or change labels: what is absent stays, null removes. Nothing that runs notices. With
    `If-Match` only as it was read (412): its version is another one after every change, those of its phase included."""
    changed = await services.conversations.describe(
        owner.tenant,
        owner.user,
        ConversationId(parse_uuid(conversation, "conversation")),
        title=body.title,
        untitled="title" in body.model_fields_set and body.title is None,
        labels=body.labels,
        expected_version=version_in(if_match),
    )
    response.headers["etag"] = etag(changed.version)
    return await rendered(services, owner, changed)


@router.patch("/runtimes/{runtime}", responses=says({200: records.Runtime}), tags=["runtimes"])
async def describe_runtime(
    runtime: str,
    body: schemas.LabelsBody,
    owner: OwnerOf,
    services: ServicesOf,
    response: Response,
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Change labels: what is absent stays, null removes. With `If-Match` as for conversations. Its name is for good."""
    changed = await services.runtimes.describe(
        owner.tenant,
        owner.user,
        ConversationId(parse_uuid(runtime, "runtime")),
        labels=body.labels,
        expected_version=version_in(if_match),
    )
    response.headers["etag"] = etag(changed.version)
    return await rendered(services, owner, changed)
