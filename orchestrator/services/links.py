"""Links to a port of a runtime, or a path of its workspace: made, listed, taken back.

They are part of what callers own of a record, so they are journaled with it, go with it, and reach every
replica's proxy with its route. The proxy decides about requests (`proxy/links.py`).
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from orchestrator.domain.clock import Clock
from orchestrator.domain.conversation import Conversation, Phase
from orchestrator.domain.errors import Conflict, InvalidRequest, LimitReached, NotFound
from orchestrator.domain.ids import ConversationId, TenantId, UserId, new_uuid
from orchestrator.domain.links import MOST_LINKS, SECRET_BYTES, Link, LinkId, digest_of, token_of
from orchestrator.services.conversations import ConversationService
from orchestrator.services.files import check_path
from orchestrator.services.resting import no_runtime

_START = "start it"
LONGEST_SECONDS = 30 * 24 * 3600
_REACHABLE = frozenset({Phase.READY, Phase.PAUSING, Phase.PAUSED, Phase.RESUMING})


@dataclass(frozen=True)
class Opening:
    """What a link is to open: `port`, or `path` of the workspace; empty is the whole of it."""

    port: int | None
    path: str | None
    seconds: int


class Links:
    """Every method works on the conversations of one tenant, and of one user where the caller is a user, or on its bare
    runtimes, as `records` does; a user sees and takes back all links of what is its own. Raises `NotFound` as
    `ConversationService.get`."""

    def __init__(self, records: ConversationService, clock: Clock, *, changed: Callable[[Conversation], None]) -> None:
        self._records = records
        self._clock = clock
        self._changed = changed

    async def make(
        self, tenant: TenantId, user: UserId | None, id: ConversationId, opening: Opening
    ) -> tuple[Link, str]:
        """A new link and its token, which is shown this once. It is good for the present generation of the runtime.
        Raises `Conflict` where there is none, `InvalidRequest`, `LimitReached`."""
        if (opening.port is None) == (opening.path is None):
            raise InvalidRequest("give one of port and path", field="port")
        if opening.path is not None:
            check_path(opening.path)
        secret, now = secrets.token_bytes(SECRET_BYTES), self._clock.now()
        link = Link(
            LinkId(new_uuid()),
            digest_of(secret),
            generation=0,
            created_at=now,
            expires_at=now + timedelta(seconds=opening.seconds),
            user=user,
            port=opening.port,
            path=opening.path,
        )

        def change(present: Conversation) -> Conversation:
            runtime = present.runtime
            if runtime is None or not runtime.generation or present.phase not in _REACHABLE:
                raise no_runtime(present, ", and there is nothing to link to", hint=_START)
            kept = self._live(present)
            if len(kept) >= MOST_LINKS:
                details = {"rule": "conversation.links", "limit": MOST_LINKS, "current": len(kept), "retry_after": 60}
                raise LimitReached(f"this {present.kind} has as many links as it may", hint="take one back", **details)
            return replace(present, links=(*kept, replace(link, generation=runtime.generation)))

        stored = await self._store(tenant, user, id, change)
        made = next(one for one in stored.links if one.id == link.id)
        runtime = stored.runtime
        if runtime is None:
            raise Conflict(f"the {stored.kind} has no runtime to link to", hint=_START)
        return made, token_of(runtime.id, secret)

    async def list(self, tenant: TenantId, user: UserId | None, id: ConversationId) -> Sequence[Link]:
        """Those that open something now, or would if the runtime were awake; the oldest first."""
        return self._live(await self._records.get(tenant, user, id))

    async def take_back(self, tenant: TenantId, user: UserId | None, id: ConversationId, link: LinkId) -> None:
        """From now on it opens nothing here, within a second on other replicas, and what came by it is ended. Raises
        `NotFound` for one that is not there any more."""

        def change(present: Conversation) -> Conversation:
            if all(one.id != link for one in present.links):
                raise NotFound("there is no such link")
            return replace(present, links=tuple(one for one in present.links if one.id != link))

        await self._store(tenant, user, id, change)

    async def _store(
        self,
        tenant: TenantId,
        user: UserId | None,
        id: ConversationId,
        change: Callable[[Conversation], Conversation],
    ) -> Conversation:
        stored = await self._records.amend(tenant, user, id, change)
        self._changed(stored)
        return stored

    def _live(self, present: Conversation) -> tuple[Link, ...]:
        now, generation = self._clock.now(), present.runtime.generation if present.runtime is not None else 0
        return tuple(one for one in present.links if one.expires_at > now and one.generation == generation)
