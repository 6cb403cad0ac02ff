"""Webhooks in memory. See `hooks_base.Hooks`."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from orchestrator.domain.hooks import (
    ATTEMPTS_KEPT,
    Attempt,
    Delivery,
    Draft,
    Gap,
    HookEndpoint,
    HookStanding,
    Outcome,
)
from orchestrator.domain.ids import HookId, TenantId
from orchestrator.state import records
from orchestrator.state.memory.outbox import Endpoint, Outbox
from orchestrator.state.memory.shelf import Shelf
from orchestrator.state.refusals import hook_queue_full, too_many_hooks


class MemoryHooks:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def put(
        self,
        endpoint: HookEndpoint,
        *,
        expected_version: int,
        queue_bytes: int,
        limit: int,
        told: Sequence[Draft] = (),
    ) -> bool:
        outbox = self._shelf.outboxes.setdefault(endpoint.tenant, Outbox())
        present = outbox.endpoints.get(endpoint.id)
        if (present.record.version if present else 0) != expected_version:
            return False
        if present is None and len(outbox.endpoints) >= limit:
            raise too_many_hooks(len(outbox.endpoints), limit)
        listens = queue_bytes if endpoint.enabled else None
        if present is None:
            outbox.endpoints[endpoint.id] = Endpoint(endpoint, listens)
        else:
            if present.queue_bytes is None and listens is not None:
                present.failures, present.failing_since_ms, present.rests_until_ms = 0, None, None
                for lane in present.lanes.values():
                    lane.tries = 0
                present.gap(0, 0, 0, Gap.DISABLED, self._shelf.now_ms())
            present.record, present.queue_bytes = endpoint, listens
        self._shelf.note(endpoint.tenant, "hook", endpoint.id, records.hook_text(endpoint))
        outbox.publish("-", told, self._shelf.now_ms())
        return True

    async def get(self, tenant: TenantId, id: HookId) -> HookEndpoint | None:
        found = self._found(tenant, id)
        return None if found is None else found.record

    async def all(self, tenant: TenantId) -> Sequence[HookEndpoint]:
        found = [endpoint.record for endpoint in self._outbox(tenant).endpoints.values()]
        return sorted(found, key=lambda hook: (hook.created_at, hook.id))

    async def delete(self, tenant: TenantId, id: HookId, *, expected_version: int | None = None) -> bool:
        endpoints = self._outbox(tenant).endpoints
        if id not in endpoints or expected_version not in (None, endpoints[id].record.version):
            return False
        del endpoints[id]
        self._shelf.note(tenant, "hook", id, None)
        return True

    async def publish(
        self, tenant: TenantId, lane: str, drafts: Sequence[Draft], *, once: str = "", once_ms: int = 0
    ) -> None:
        outbox, now = self._outbox(tenant), self._shelf.now_ms()
        if not any(endpoint.queue_bytes is not None for endpoint in outbox.endpoints.values()):
            return
        if once and outbox.once.get(once, 0) > now:
            return
        if once:
            outbox.once[once] = now + once_ms
        outbox.publish(lane, drafts, now)

    async def claim_due(self, *, limit: int, each: Callable[[TenantId], int], claim_ms: int) -> Sequence[Delivery]:
        claimed: list[Delivery] = []
        for tenant, outbox in self._shelf.outboxes.items():
            left = min(limit - len(claimed), each(tenant))
            for endpoint in outbox.endpoints.values():
                found = self._claim(tenant, endpoint, left, claim_ms)
                claimed += found
                left -= len(found)
        return claimed

    def _claim(self, tenant: TenantId, endpoint: Endpoint, limit: int, claim_ms: int) -> list[Delivery]:
        now = self._shelf.now_ms()
        if endpoint.queue_bytes is None or (endpoint.rests_until_ms or 0) > now or limit <= 0:
            return []
        due = sorted((lane.due_ms, name) for name, lane in endpoint.lanes.items() if lane.due_ms <= now)
        claimed = []
        for _, name in due[: 1 if endpoint.failures else limit]:
            lane = endpoint.lanes[name]
            lane.due_ms = now + claim_ms
            claimed.append(Delivery(tenant, endpoint.record.id, name, str(lane.due_ms), lane.tries, lane.entries[0]))
            if endpoint.failures:
                endpoint.rests_until_ms = now + claim_ms
        return claimed

    async def next_due_ms(self) -> int | None:
        times = [
            max(lane.due_ms, endpoint.rests_until_ms or 0)
            for outbox in self._shelf.outboxes.values()
            for endpoint in outbox.endpoints.values()
            if endpoint.queue_bytes is not None
            for lane in endpoint.lanes.values()
        ]
        return max(0, min(times) - self._shelf.now_ms()) if times else None

    async def delivered(self, delivery: Delivery, attempt: Attempt, *, claim_ms: int) -> Delivery | None:
        endpoint = self._held(delivery, attempt)
        if endpoint is None:
            return None
        now, lane = self._shelf.now_ms(), endpoint.lanes[delivery.lane]
        if attempt.outcome is Outcome.DELIVERED:
            endpoint.failures, endpoint.failing_since_ms, endpoint.rests_until_ms = 0, None, None
        lane.tries = 0
        if lane.entries[0] == delivery.entry:  # a marker may have grown while it was sent: then it is sent again
            lane.entries.pop(0)
        if attempt.outcome is Outcome.GIVEN_UP:
            sequence = int(delivery.entry.partition(":")[0]) if delivery.entry[0].isdigit() else 0
            endpoint.gap(sequence, sequence, 1, Gap.GIVEN_UP, now)
        if not lane.entries:
            del endpoint.lanes[delivery.lane]
            return None
        lane.due_ms = now + claim_ms
        return replace(delivery, mark=str(lane.due_ms), entry=lane.entries[0], tries=0)

    async def failed(
        self, delivery: Delivery, attempt: Attempt, *, lane_rests_ms: int, endpoint_rests_ms: int
    ) -> tuple[int, int]:
        endpoint = self._held(delivery, attempt)
        if endpoint is None:
            return 0, 0
        now, lane = self._shelf.now_ms(), endpoint.lanes[delivery.lane]
        lane.tries += 1
        lane.due_ms = now + lane_rests_ms
        endpoint.failures += 1
        endpoint.rests_until_ms = now + endpoint_rests_ms
        if endpoint.failing_since_ms is None:
            endpoint.failing_since_ms = now
        return endpoint.failures, now - endpoint.failing_since_ms

    async def hand_back(self, delivery: Delivery) -> None:
        endpoint = self._held(delivery, None)
        if endpoint is not None:
            endpoint.lanes[delivery.lane].due_ms = self._shelf.now_ms()

    async def standing(self, tenant: TenantId, id: HookId) -> HookStanding:
        found = self._found(tenant, id)
        if found is None:
            return HookStanding()
        waiting = sum(len(lane.entries) for lane in found.lanes.values())
        return HookStanding(waiting, found.waiting_bytes, found.failures, found.failing_since_ms, found.rests_until_ms)

    async def attempts(self, tenant: TenantId, id: HookId, *, before: str | None, limit: int) -> Sequence[Attempt]:
        found = self._found(tenant, id)
        log = list(reversed(found.log)) if found is not None else []
        return [one for one in log if before is None or _order(one.id) < _order(before)][:limit]

    async def attempt(self, tenant: TenantId, id: HookId, attempt: str) -> Attempt | None:
        found = self._found(tenant, id)
        return next((one for one in found.log if one.id == attempt), None) if found is not None else None

    async def again(self, tenant: TenantId, id: HookId, *attempts: Attempt) -> bool:
        found = self._found(tenant, id)
        if found is None or found.queue_bytes is None:
            return False
        if found.waiting_bytes + sum(len(one.entry.encode()) for one in attempts) > found.queue_bytes:
            raise hook_queue_full()
        for one in attempts:
            found.append(one.lane, one.entry, self._shelf.now_ms())
        return True

    async def note(self, tenant: TenantId, id: HookId, attempt: Attempt) -> str:
        found = self._found(tenant, id)
        return "" if found is None else self._log(found, attempt)

    def _held(self, delivery: Delivery, attempt: Attempt | None) -> Endpoint | None:
        """The endpoint, if the lane is still this sender's; the attempt is written down in any case."""
        endpoint = self._found(delivery.tenant, delivery.endpoint)
        if endpoint is None:
            return None
        if attempt is not None:
            self._log(endpoint, attempt)
        lane = endpoint.lanes.get(delivery.lane)
        return endpoint if lane is not None and str(lane.due_ms) == delivery.mark else None

    def _log(self, endpoint: Endpoint, attempt: Attempt) -> str:
        now = self._shelf.now_ms()
        last_ms, last_place = _order(endpoint.log[-1].id) if endpoint.log else (0, 0)
        id = f"{now}-0" if now > last_ms else f"{last_ms}-{last_place + 1}"
        endpoint.log = [*endpoint.log, replace(attempt, id=id, at=self._shelf.now())][-ATTEMPTS_KEPT:]
        return id

    def _outbox(self, tenant: TenantId) -> Outbox:
        return self._shelf.outboxes.get(tenant, Outbox())

    def _found(self, tenant: TenantId, id: HookId) -> Endpoint | None:
        return self._outbox(tenant).endpoints.get(id)


def _order(id: str) -> tuple[int, int]:
    ms, _, place = id.partition("-")
    return (int(ms), int(place)) if ms.isdigit() and place.isdigit() else (0, 0)
