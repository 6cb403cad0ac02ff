"""The fenced lease on a conversation, in Redis, with the server's clock. Part of `conversations.py`.

A lease is three fields in the conversation's own hash, so that every write compares them in the same script. Its end is
also the time at which the conversation is due: whoever finds it due may take it.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from orchestrator.domain.conversation import Conversation
from orchestrator.domain.errors import StoreUnavailable
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.state import due, records
from orchestrator.state.base import Lease
from orchestrator.state.funnel import Call, Funnel, command, run
from orchestrator.state.keys import TenantKeys

_UNREADABLE_MS = 60_000


class RedisLeases:
    def __init__(self, funnel: Funnel) -> None:
        self._funnel = funnel

    async def claim_due(self, owner: str, *, lease_ms: int, limit: int) -> Sequence[tuple[Lease, Conversation]]:
        mark, tenants = await due.visit(self._funnel, limit=limit)
        # The limit is shared out, so that one tenant with much to do does not keep the others. All at once: on a
        # slow server the first leases would end before the last are taken.
        claiming = [
            self._claim_of(tenant, owner, lease_ms=lease_ms, limit=(limit + place) // len(tenants), mark=mark)
            for place, tenant in enumerate(tenants)
        ]
        found = await asyncio.gather(*claiming, return_exceptions=True)
        claimed = [one for ones in found if not isinstance(ones, BaseException) for one in ones]
        for problem in found:
            if isinstance(problem, BaseException) and not (claimed and isinstance(problem, StoreUnavailable)):
                raise problem
        return claimed

    async def claim(
        self, tenant: TenantId, id: ConversationId, owner: str, *, lease_ms: int
    ) -> tuple[Lease, Conversation] | None:
        t = TenantKeys(tenant)
        call = run("conversation_claim", (t.conversation(id), t.due, t.era), id, owner, lease_ms, records.SCHEMA)
        parts = await due.waking(self._funnel, tenant, call, due_in_ms=lease_ms)
        return None if parts is None else _leased(owner, parts)

    async def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> Sequence[bool | None]:
        if not leases:
            await self._funnel.batch(command("PING"), patient=True)
            return []
        # Patient: a server that was silent is given the whole time, since what is not renewed is lost.
        replies = await self._funnel.batch(*(_renewing(one, lease_ms) for one in leases), apart=True, patient=True)
        return [None if isinstance(reply, Exception) else bool(reply) for reply in replies]

    async def settle(self, lease: Lease, *, due_in_ms: int | None) -> None:
        t = TenantKeys(lease.tenant)
        call = run(
            "lease_settle",
            (t.conversation(lease.conversation), t.due),
            lease.conversation,
            lease.owner,
            lease.fence,
            "" if due_in_ms is None else due_in_ms,
        )
        if due_in_ms is None:
            poked = await self._funnel.one(call)
        else:
            poked = await due.waking(self._funnel, lease.tenant, call, due_in_ms=due_in_ms)
        if poked:
            await due.wake(self._funnel, lease.tenant)

    async def next_due_ms(self) -> int | None:
        return await due.next_due_ms(self._funnel)

    async def _claim_of(
        self, tenant: TenantId, owner: str, *, lease_ms: int, limit: int, mark: str
    ) -> list[tuple[Lease, Conversation]]:
        t = TenantKeys(tenant)
        next_due_ms, *found = await self._funnel.one(
            run(
                "conversations_claim_due",
                (t.due, t.conversation_prefix, t.era),
                owner,
                lease_ms,
                limit,
                records.SCHEMA,
                _UNREADABLE_MS,
            )
        )
        with suppress(StoreUnavailable):  # costs the tenant less than leases that nobody holds
            await self._funnel.one(due.refile(tenant, mark=mark, next_due_ms=next_due_ms))
        return records.readable(lambda parts: _leased(owner, parts), found)


def _renewing(lease: Lease, lease_ms: int) -> Call:
    t = TenantKeys(lease.tenant)
    keys = (t.conversation(lease.conversation), t.due)
    return run("lease_renew", keys, lease.conversation, lease.owner, lease.fence, lease_ms)


def _leased(owner: str, parts: Sequence[str]) -> tuple[Lease, Conversation]:
    conversation = records.conversation_from(parts)
    return Lease(conversation.tenant, conversation.id, owner, conversation.fence), conversation
