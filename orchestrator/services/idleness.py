"""Whether a ready conversation is idle: nobody has used it for as long as its settings allow, and its agent rests.

The time is the setting `limits.idle_pause_seconds` of the request, the user or the tenant, else the operator's, and
never more than the operator's cap. 0 means never.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain.clock import Clock
from orchestrator.domain.conversation import Conversation, Kind, Phase
from orchestrator.domain.errors import RuntimeUnreachable
from orchestrator.domain.retention import Spans, Times
from orchestrator.nested.client import RuntimeClients
from orchestrator.nested.refusals import Refused
from orchestrator.services.activity import Activity
from orchestrator.services.effective import Effective
from orchestrator.services.keys import KeyRing
from orchestrator.state.base import Conversations

_AT_WORK = "running"


@dataclass(frozen=True)
class Rest:
    """How a ready conversation stands: unused since `since`; paused at `pauses_at` unless somebody or its agent is
    active until then, None for never."""

    after_seconds: float
    since: datetime
    pauses_at: datetime | None


class Idleness:
    """Reads the activity, and asks the runtime only when everything else says that it is idle."""

    def __init__(
        self,
        conversations: Conversations,
        effective: Effective,
        activity: Activity,
        clients: RuntimeClients,
        keys: KeyRing,
        clock: Clock,
        spans: Spans,
    ) -> None:
        self._conversations = conversations
        self._effective = effective
        self._activity = activity
        self._clients = clients
        self._keys = keys
        self._clock = clock
        self._spans = spans

    async def times(self, conversation: Conversation) -> Times:
        """What the clock does to it, as its settings and the operator say."""
        return self._spans.times((await self._effective.settings(conversation)).get("limits"))

    async def rest(self, conversation: Conversation) -> Rest | None:
        """For showing; None while the conversation is not ready."""
        if conversation.phase is not Phase.READY:
            return None
        after = (await self.times(conversation)).idle_pause
        since = await self._since(conversation)
        return Rest(after, since, since + timedelta(seconds=after) if after else None)

    async def seconds_left(self, conversation: Conversation) -> float | None:
        """Until it is to be paused: 0 for now, None for never. A running agent is activity, an open socket is too."""
        rest = await self.rest(conversation)
        if rest is None or rest.pauses_at is None:
            return None
        left = (rest.pauses_at - self._clock.now()).total_seconds()
        if left > 0:
            return left
        if self.is_used(conversation) or await self.is_at_work(conversation):
            await self._conversations.touch(conversation.tenant, conversation.id)
            return rest.after_seconds
        return 0.0

    async def is_idle(self, conversation: Conversation) -> bool:
        """Whether nobody uses it at this moment and its agent rests, however long it has been so."""
        return not self.is_used(conversation) and not await self.is_at_work(conversation)

    async def unused_seconds(self, conversation: Conversation) -> float:
        """Since its last use, or since it became ready."""
        return (self._clock.now() - await self._since(conversation)).total_seconds()

    def is_used(self, conversation: Conversation) -> bool:
        """Whether a client uses it at this moment, as far as this replica knows. Never waits."""
        return self._activity.is_used(conversation.tenant, conversation.id)

    async def _since(self, conversation: Conversation) -> datetime:
        unused = await self._conversations.unused_ms(conversation.tenant, conversation.id)
        if unused is None:
            return conversation.phase_since
        return max(conversation.phase_since, self._clock.now() - timedelta(milliseconds=unused))

    async def is_at_work(self, conversation: Conversation) -> bool:
        """Whether the agent runs. One that cannot be asked is taken to: its own round finds out what is wrong."""
        runtime, key = conversation.runtime, await self._keys.inner_key(conversation)
        if runtime is None or key is None:
            return True
        try:
            async with self._clients.open(f"http://{runtime.address}", key) as client:
                if conversation.kind is Kind.RUNTIME:  # what its clients began in it
                    return await client.conversations_in(_AT_WORK) > 0
                return (await client.conversation(conversation.id)).get("execution_status") == _AT_WORK
        except (RuntimeUnreachable, Refused):
            return True
