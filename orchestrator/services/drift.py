"""What a runtime says that it holds, compared with what it said just after it was told; every minute or as
`NESTOR_DRIFT_SECONDS` says.

Only the names that were pushed are asked about: what its users add there is theirs. Nothing is opened for it, and a
runtime that does not run is not asked. `upkeep.py` decides what is done about a difference.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from orchestrator.domain.clock import Clock
from orchestrator.domain.conversation import Conversation, Held
from orchestrator.domain.drift import Part, Seen
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.domain.secrets import SecretText
from orchestrator.nested import stock
from orchestrator.nested.client import RuntimeClient
from orchestrator.nested.refusals import Refused

_JUST = timedelta(seconds=1)  # between what was pushed at a start and its commit point


class Looks:
    """When each conversation of this replica was looked at last. After a resume it is due at once; what has just been
    pushed was looked at by that. `seconds` 0: never."""

    def __init__(self, clock: Clock, *, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._last: dict[tuple[TenantId, ConversationId], tuple[datetime, float]] = {}

    def is_due(self, conversation: Conversation, held: Held) -> bool:
        """Whether it is; then it counts as looked at."""
        place, now = (conversation.tenant, conversation.id), self._clock.monotonic()
        since, at = self._last.get(place, (None, 0.0))
        if not self._seconds or (since == conversation.phase_since and now - at < self._seconds):
            return False
        self._last.pop(place, None)  # so that it becomes the youngest
        self._last[place] = (conversation.phase_since, now)
        while now - self._last[oldest := next(iter(self._last))][1] > 2 * self._seconds:
            del self._last[oldest]
        return since is not None or held.at < conversation.phase_since - _JUST


async def seen_by(client: RuntimeClient, held: Held, key: SecretText, *, is_stock: bool) -> Seen | None:
    """What the runtime has now under the names that it was told; None where it cannot be asked (one of ours of an older
    version). Raises `RuntimeUnreachable`, and `Refused` for what is no answer to that question."""
    if is_stock:
        return await _shown(client, held, key)
    try:
        found = await client.digests(
            {Part.SETTINGS: held.settings, Part.PROVIDERS: held.providers, Part.SECRETS: held.secrets}
        )
    except Refused as exc:
        if exc.status in (404, 405):
            return None
        raise
    return Seen(found[Part.SETTINGS], found[Part.PROVIDERS], found[Part.SECRETS])


async def _shown(client: RuntimeClient, held: Held, key: SecretText) -> Seen:
    """Of a stock agent server: its settings as it shows them, and which secrets it has."""
    document, names = await client.settings(), await client.secret_names()
    settings = [[pointer, _at(document, pointer)] for pointer in held.settings]
    providers = [stock.secret_of_provider(name) in names for name in held.providers]
    secrets = [name in names for name in held.secrets]
    return Seen(_digest(key, settings), _digest(key, providers), _digest(key, secrets), values=False)


def _at(document: Mapping[str, Any], pointer: str) -> list[Any]:
    found: Any = document
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or name not in found:
            return []
        found = found[name]
    return [found]


def _digest(key: SecretText, value: Any) -> str:
    text = json.dumps(value, sort_keys=True).encode("utf-8", "surrogatepass")
    return hmac.new(key.open().encode(), text, hashlib.sha256).hexdigest()[:32]
