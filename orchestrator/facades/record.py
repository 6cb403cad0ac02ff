"""What both generations tell of a conversation, and how both find and change one. Used by `v0` and `app_conversations`.

What the native record has no field for is kept in labels of the conversation, under names that begin with `v1.`.
"""

from collections.abc import Callable, Mapping

import anyio

from orchestrator.api.auth import Owner
from orchestrator.api.context import Services
from orchestrator.domain.conversation import Conversation, Phase
from orchestrator.domain.ids import ConversationId
from orchestrator.domain.tenancy import Scope
from orchestrator.facades.statuses import TABLE, Statuses, statuses_of
from orchestrator.services.messages import Content
from orchestrator.services.resting import at_rest
from orchestrator.state.base import Message, Page

LABELS = "v1."
DEFAULT_TRIGGER = "openhands_api"
_LOOKS = 20  # pages that one request looks at: where little fits, a page is short and says where to go on
_LOOK_SECONDS, _SEEN_SECONDS = 0.05, 5.0


def label(conversation: Conversation, name: str) -> str | None:
    """A field that the native record has no place for."""
    return conversation.labels.get(LABELS + name)


def labelled(fields: Mapping[str, str | None]) -> dict[str, str]:
    """Such fields as labels; those without a value stay out."""
    return {LABELS + name: value for name, value in fields.items() if value is not None}


def numbers_of(conversation: Conversation) -> list[int]:
    """Its `pr_number`s."""
    return [int(text) for text in (label(conversation, "pr_number") or "").split(",") if text.isdigit()]


def origin_of(services: Services, conversation: Conversation) -> str | None:
    """The origin of its agent server, while it can be reached."""
    return services.runtime_url(conversation) if conversation.phase is Phase.READY else None


async def told_of(services: Services, conversation: Conversation) -> Statuses:
    """Its statuses. A start that was asked for is told as one, also before a worker has taken it up: whoever polls
    after it takes an earlier end for the end of it."""
    if at_rest(conversation) and await services.conversations.is_starting(conversation):
        return TABLE[Phase.PENDING]
    return statuses_of(conversation)


async def session_key_of(services: Services, owner: Owner, conversation: Conversation) -> str | None:
    """Its session key, while it is good for something and to a key that may write: it opens all of the runtime."""
    if conversation.phase is not Phase.READY or Scope.WRITE not in owner.caller.scopes:
        return None
    key = await services.keys.session_key(conversation)
    return None if key is None else key.open()


async def page_of(
    services: Services, owner: Owner, keep: Callable[[Conversation], bool], *, cursor: str | None, limit: int
) -> Page[Conversation]:
    """Newest first, those that `keep` wants. It may be short, and then says where to go on."""
    items: list[Conversation] = []
    for _ in range(_LOOKS):
        page = await services.conversations.list(owner.tenant, owner.user, cursor=cursor, limit=limit - len(items))
        items += filter(keep, page.items)
        cursor = page.next_cursor
        if cursor is None or len(items) >= limit:
            break
    return Page(items, cursor)


async def post(services: Services, owner: Owner, id: ConversationId, content: Content) -> Message:
    """A message into the inbox. Where the runtime is there, also wait a moment until it is in the log: whoever reads
    next reads it, and takes no earlier end for the answer to it. Raises as `Messages.post`."""
    message = await services.messages.post(owner.tenant, owner.user, id, content=content, client_id=None)
    with anyio.move_on_after(_SEEN_SECONDS), services.arrivals.of(id) as news:
        while (await services.conversations.get(owner.tenant, owner.user, id)).phase is Phase.READY:
            found = await services.messages.find(owner.tenant, owner.user, id, message.client_id)
            if found.accepted is not None:
                return found
            await news.wait(_LOOK_SECONDS)
    return message
