"""What callers call their conversations and bare runtimes: a title and labels, changed in every phase."""

from typing import Any

from fastapi import APIRouter, Response

from orchestrator.api import schemas
from orchestrator.api.acceptance import rendered
from orchestrator.api.answers import records
from orchestrator.api.answers.declared import says
from orchestrator.api.auth import OwnerOf, ServicesOf
from orchestrator.api.conditions import ConditionOf, tell_version
from orchestrator.domain.conversation import Conversation, Kind
from orchestrator.domain.ids import ConversationId, parse_uuid

router = APIRouter(prefix="/api/v2")


@router.patch("/conversations/{conversation}", responses=says({200: records.Conversation}), tags=["conversations"])
async def describe_conversation(
    conversation: str,
    body: schemas.DescriptionBody,
    owner: OwnerOf,
    services: ServicesOf,
    response: Response,
    condition: ConditionOf,
) -> dict[str, Any]:
    """Give it another title, or change labels: what is absent stays, null removes. Nothing that runs notices. With
    `If-Match` only as it was read (412): its version is another one after every change, those of its phase included."""
    changed = await services.conversations.describe(
        owner.tenant,
        owner.user,
        _id(conversation, Kind.CONVERSATION),
        title=body.title,
        untitled="title" in body.model_fields_set and body.title is None,
        labels=body.labels,
        condition=condition,
    )
    return await _changed(services, owner, changed, response)


@router.put("/conversations/{conversation}/labels", responses=says({200: records.Conversation}), tags=["conversations"])
async def label_conversation(
    conversation: str,
    body: schemas.AllLabelsBody,
    owner: OwnerOf,
    services: ServicesOf,
    response: Response,
    condition: ConditionOf,
) -> dict[str, Any]:
    """Give it exactly these labels, and remove the others. The answer is the record."""
    id = _id(conversation, Kind.CONVERSATION)
    changed = await services.conversations.describe(
        owner.tenant, owner.user, id, labels=body.root, relabel=True, condition=condition
    )
    return await _changed(services, owner, changed, response)


@router.patch("/runtimes/{runtime}", responses=says({200: records.Runtime}), tags=["runtimes"])
async def describe_runtime(
    runtime: str,
    body: schemas.LabelsBody,
    owner: OwnerOf,
    services: ServicesOf,
    response: Response,
    condition: ConditionOf,
) -> dict[str, Any]:
    """Change labels: what is absent stays, null removes. With `If-Match` as for conversations. Its name is for good."""
    id = _id(runtime, Kind.RUNTIME)
    changed = await services.runtimes.describe(owner.tenant, owner.user, id, labels=body.labels, condition=condition)
    return await _changed(services, owner, changed, response)


@router.put("/runtimes/{runtime}/labels", responses=says({200: records.Runtime}), tags=["runtimes"])
async def label_runtime(
    runtime: str,
    body: schemas.AllLabelsBody,
    owner: OwnerOf,
    services: ServicesOf,
    response: Response,
    condition: ConditionOf,
) -> dict[str, Any]:
    """Give it exactly these labels, and remove the others. The answer is the record."""
    id = _id(runtime, Kind.RUNTIME)
    changed = await services.runtimes.describe(
        owner.tenant, owner.user, id, labels=body.root, relabel=True, condition=condition
    )
    return await _changed(services, owner, changed, response)


async def _changed(services: ServicesOf, owner: OwnerOf, changed: Conversation, response: Response) -> dict[str, Any]:
    tell_version(response, changed.version)
    return await rendered(services, owner, changed)


def _id(text: str, kind: Kind) -> ConversationId:
    return ConversationId(parse_uuid(text, kind))
