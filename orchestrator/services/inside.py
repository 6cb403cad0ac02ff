"""What a conversation's own agent server says of it, for surfaces that pass it on. A small read, never a data path."""

from typing import Any

from orchestrator.domain.conversation import Conversation
from orchestrator.domain.errors import RuntimeUnreachable
from orchestrator.nested.client import RuntimeClients
from orchestrator.services.keys import KeyRing


class Inside:
    """Asks; changes nothing and keeps nothing."""

    def __init__(self, clients: RuntimeClients, keys: KeyRing) -> None:
        self._clients = clients
        self._keys = keys

    async def conversation(self, conversation: Conversation) -> dict[str, Any]:
        """The agent server's own record of a ready one. Raises `RuntimeUnreachable`, `Refused`."""
        runtime, key = conversation.runtime, await self._keys.inner_key(conversation)
        if runtime is None or key is None or not runtime.address:
            raise RuntimeUnreachable("the conversation has no runtime now")
        async with self._clients.open(f"http://{runtime.address}", key, generation=runtime.generation) as client:
            return await client.conversation(conversation.id)
