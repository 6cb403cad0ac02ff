"""Messages to a conversation: put into its inbox, whatever the conversation's phase, and what became of them."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field, StringConstraints

from orchestrator.api.answers import contents, operations
from orchestrator.api.answers.declared import says
from orchestrator.api.auth import OwnerOf, ServicesOf
from orchestrator.api.conversations import id_of
from orchestrator.api.idempotency import NaturalIdOf
from orchestrator.api.lists import MOST, IdsOf, Limit, Number, PageNumber, place_of
from orchestrator.api.schemas import Body
from orchestrator.state.base import Message

router = APIRouter(prefix="/api/v2", tags=["messages"])
Text = Annotated[str, StringConstraints(min_length=1, max_length=1_000_000)]
ImageUrl = Annotated[str, StringConstraints(pattern=r"^(https?://|data:image/)")]


class TextPart(Body):
    type: Literal["text"]
    text: Text


class ImagePart(Body):
    """Images by address, or as `data:` addresses; the limit of the whole body bounds them."""

    type: Literal["image"]
    image_urls: Annotated[list[ImageUrl], Field(min_length=1, max_length=20)]


class InboxMessageBody(Body):
    content: Text | Annotated[list[TextPart | ImagePart], Field(min_length=1, max_length=50)]
    client_id: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None


@router.post("/conversations/{conversation}/messages", status_code=202, responses=says({202: contents.Message}))
async def post_message(
    conversation: str, body: InboxMessageBody, owner: OwnerOf, services: ServicesOf, natural_id: NaturalIdOf
) -> dict[str, Any]:
    """Put a message into the inbox; it reaches the agent in order, once for each `client_id` (or `Idempotency-Key`).
    A repeat has the first receipt; another content under the same id is 422, an archived conversation 409."""
    content = body.content if isinstance(body.content, str) else [part.model_dump() for part in body.content]
    message = await services.messages.post(
        owner.tenant, owner.user, id_of(conversation), content=content, client_id=body.client_id or natural_id
    )
    return receipt(message)


@router.get("/conversations/{conversation}/messages", responses=says({200: contents.MessagePage}))
async def list_messages(
    request: Request,
    conversation: str,
    owner: OwnerOf,
    services: ServicesOf,
    ids: IdsOf,
    after: Number = 0,
    page_id: PageNumber = None,
    limit: Limit = MOST,
) -> dict[str, Any]:
    """The receipts above `after`, in the order of the inbox. `next_page_id` is the `after` of the next page. `ids` are
    `client_id`s."""
    after = place_of(request, after, page_id)
    if ids is not None:
        asked = await services.messages.many(owner.tenant, owner.user, id_of(conversation), ids)
        return {"items": [None if one is None else receipt(one) for one in asked], "next_page_id": None}
    found = await services.messages.page(owner.tenant, owner.user, id_of(conversation), after=after, limit=limit)
    following = str(found[-1].sequence) if len(found) == limit else None
    return {"items": [receipt(message) for message in found], "next_page_id": following}


@router.get("/conversations/{conversation}/messages/count", responses=says({200: operations.Count}))
async def count_messages(conversation: str, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """How many ever came into the inbox. (A message whose `client_id` is "count" is read by `?ids=count`.)"""
    count = await services.messages.count(owner.tenant, owner.user, id_of(conversation))
    return {"count": count, "next_page_id": None}


@router.get("/conversations/{conversation}/messages/{message:path}", responses=says({200: contents.Message}))
async def get_message(conversation: str, message: str, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """One receipt, by the message's `client_id`."""
    return receipt(await services.messages.find(owner.tenant, owner.user, id_of(conversation), message))


def receipt(message: Message) -> dict[str, Any]:
    """`queued`: kept here. `delivered`: the runtime has it on its disk. `accepted`: it is in the conversation's event
    log, under `event_sequence`. `undeliverable`: the conversation was archived while it was queued."""
    state = "accepted" if message.accepted is not None else "delivered" if message.delivered else "queued"
    state = "undeliverable" if message.undeliverable else state
    out: dict[str, Any] = {"id": message.client_id, "state": state, "sequence": message.sequence}
    return out if message.accepted is None else {**out, "event_sequence": message.accepted}
