"""The one deadline of a whole start: its tries, the rests between them, and what has to be undone before it.

Kept in memory: a replica that takes a start over gives it the whole time once more, since whoever was down meanwhile
did nothing for it. Used by `lifecycle.py`.
"""

from orchestrator.domain.clock import Clock
from orchestrator.domain.conversation import Conversation
from orchestrator.domain.ids import ConversationId, OperationId

_KEPT = 4096  #: more than a replica has under way; what another one brought to its end is forgotten after so many
_Start = tuple[ConversationId, OperationId | None]


class StartClocks:
    """Of one replica. A start is known by its operation."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._began: dict[_Start, float] = {}

    def left(self, conversation: Conversation) -> float:
        """Seconds that its start has, which begins with the first time that this is asked."""
        now = self._clock.monotonic()
        began = self._began.setdefault(_start(conversation), now)
        if len(self._began) > _KEPT:
            del self._began[next(iter(self._began))]
        return began + self._seconds - now

    def stop(self, conversation: Conversation) -> None:
        """It has come to its end."""
        self._began.pop(_start(conversation), None)


def _start(conversation: Conversation) -> _Start:
    return conversation.id, conversation.operation
