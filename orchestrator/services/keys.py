"""The keys of one runtime: which there are, and how they travel in its record. Nothing here is in the clear at rest."""

from dataclasses import dataclass

from orchestrator.domain.conversation import Conversation, RuntimeRecord
from orchestrator.domain.secrets import SecretText, new_secret
from orchestrator.security.session_keys import hash_key, mint_session
from orchestrator.services.layers import Sealer


@dataclass(frozen=True)
class RuntimeKeys:
    """`session`: what clients hold, stable for the runtime's life. `inner`: between orchestrator and runtime, new each
    generation. `state`: under which the runtime keeps its own state, the same as long as its volume."""

    session: SecretText
    inner: SecretText
    state: SecretText


class KeyRing:
    """Makes and opens the keys of runtimes."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    async def renew(self, conversation: Conversation, generation: int) -> tuple[RuntimeRecord, RuntimeKeys]:
        """The runtime record of a new generation: a new inner key, the other two kept where there are any."""
        record = conversation.runtime
        if record is None:
            raise ValueError("the record of a conversation names its runtime from the start")
        session = (await self._open(conversation, "session", record.session_key_sealed)) or mint_session(record.id)
        state = (await self._open(conversation, "state", record.state_key_sealed)) or new_secret()
        keys = RuntimeKeys(session=session, inner=new_secret(), state=state)
        renewed = RuntimeRecord(
            id=record.id,
            generation=generation,
            session_key_hash=hash_key(session.open()),
            session_key_sealed=await self._seal(conversation, "session", session),
            inner_key_sealed=await self._seal(conversation, "inner", keys.inner),
            state_key_sealed=await self._seal(conversation, "state", state),
            public_port=record.public_port,
            volume=record.volume,
        )
        return renewed, keys

    async def session_key(self, conversation: Conversation) -> SecretText | None:
        """What a client of this runtime sends; None before its first start."""
        runtime = conversation.runtime
        return await self._open(conversation, "session", runtime.session_key_sealed if runtime else "")

    async def inner_key(self, conversation: Conversation) -> SecretText | None:
        """What the runtime itself accepts; None before its first start."""
        runtime = conversation.runtime
        return await self._open(conversation, "inner", runtime.inner_key_sealed if runtime else "")

    async def _seal(self, conversation: Conversation, name: str, value: SecretText) -> str:
        return await self._sealer.seal(conversation.tenant, None, "runtime-key", f"{conversation.id}/{name}", 1, value)

    async def _open(self, conversation: Conversation, name: str, sealed: str) -> SecretText | None:
        if not sealed:
            return None
        return await self._sealer.open(conversation.tenant, None, "runtime-key", f"{conversation.id}/{name}", 1, sealed)
