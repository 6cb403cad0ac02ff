"""What the stores promise about webhooks: the endpoints of a tenant, and the outbox of what they are told.

Whatever changes something that is told (a conversation's phase, its log) puts it into the outbox in the same step. The
outbox has one lane for each endpoint and conversation; a lane is in order, and at one time with one sender.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from orchestrator.domain.hooks import Attempt, Delivery, Draft, HookEndpoint, HookStanding
from orchestrator.domain.ids import HookId, TenantId


class Hooks(Protocol):
    async def put(
        self,
        endpoint: HookEndpoint,
        *,
        expected_version: int,
        queue_bytes: int,
        limit: int,
        told: Sequence[Draft] = (),
    ) -> bool:
        """Compare-and-set (0: must not exist); `told` goes to those that listen afterwards. Raises `LimitReached` for
        one more than `limit`. One that listens again is told that events are missing."""
        ...

    async def get(self, tenant: TenantId, id: HookId) -> HookEndpoint | None: ...
    async def all(self, tenant: TenantId) -> Sequence[HookEndpoint]:
        """The oldest first."""
        ...

    async def delete(self, tenant: TenantId, id: HookId, *, expected_version: int | None = None) -> bool:
        """With its queue and its log; False when there is none, or (unless None) it has another version."""
        ...

    async def publish(
        self, tenant: TenantId, lane: str, drafts: Sequence[Draft], *, once: str = "", once_ms: int = 0
    ) -> None:
        """Tell something that is no change of a stored object; under the name `once`, once in `once_ms`."""
        ...

    async def claim_due(self, *, limit: int, each: Callable[[TenantId], int], claim_ms: int) -> Sequence[Delivery]:
        """The heads of up to `limit` lanes that are due, of each tenant at most `each`; nobody else gets them for
        `claim_ms`."""
        ...

    async def next_due_ms(self) -> int | None:
        """Milliseconds until something may be due (0: now), None when nothing is. May be early."""
        ...

    async def delivered(self, delivery: Delivery, attempt: Attempt, *, claim_ms: int) -> Delivery | None:
        """It is done (delivered, or given up: then a marker follows). Answers the next of the lane, claimed anew."""
        ...

    async def failed(
        self, delivery: Delivery, attempt: Attempt, *, lane_rests_ms: int, endpoint_rests_ms: int
    ) -> tuple[int, int]:
        """It stays the head of its lane. Answers the endpoint's failures in a row and for how many ms it has failed."""
        ...

    async def hand_back(self, delivery: Delivery) -> None:
        """It was not tried: due now, for whoever takes it."""
        ...

    async def standing(self, tenant: TenantId, id: HookId) -> HookStanding: ...
    async def attempts(self, tenant: TenantId, id: HookId, *, before: str | None, limit: int) -> Sequence[Attempt]:
        """The latest first, those older than the attempt `before`."""
        ...

    async def attempt(self, tenant: TenantId, id: HookId, attempt: str) -> Attempt | None: ...
    async def again(self, tenant: TenantId, id: HookId, *attempts: Attempt) -> bool:
        """Put what those attempts were about at the end of their lanes, in this order; False when the endpoint does not
        listen. Raises `LimitReached` when its queue has no room for all of it; then nothing is put there."""
        ...

    async def note(self, tenant: TenantId, id: HookId, attempt: Attempt) -> str:
        """Write an attempt into the log that belongs to no lane; answers its id."""
        ...
