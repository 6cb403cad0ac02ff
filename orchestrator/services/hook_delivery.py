"""Sending what webhooks are told: the outbox is emptied by every replica, lane by lane, under claims.

A lane (an endpoint and a conversation) is in order and has one sender at a time; a sender that dies is followed by
another when its claim ends, and what it had sent may come twice, under the same id. An endpoint that fails rests,
longer each time; then one lane is tried, and the first success lets all go on.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import anyio
import structlog
from anyio.abc import TaskGroup

from orchestrator.domain.clock import Clock, parse_rfc3339
from orchestrator.domain.errors import NestorError, StoreUnavailable
from orchestrator.domain.hooks import (
    Attempt,
    Delivery,
    HookEndpoint,
    HookSecret,
    HookStanding,
    Outcome,
    backoff_ms,
    body_of,
    trace_of,
)
from orchestrator.domain.ids import HookId, TenantId
from orchestrator.domain.secrets import SecretText
from orchestrator.services.layers import Sealer
from orchestrator.state.base import Hooks
from orchestrator.telemetry import metrics

log = structlog.get_logger(__name__)
Disable = Callable[[TenantId, HookId, str], Awaitable[None]]
GONE = 410
_ENTRIES_A_CLAIM = 50
_TRIES_AT_LEAST = 5
_LONGEST_LANE_REST_MS = 4 * 3600 * 1000
_LONGEST_ENDPOINT_REST_MS = 15 * 60 * 1000  # one small request then tells whether it is back
_LONGEST_SLEEP = 1.0
_AT_ONCE, _AT_ONCE_A_TENANT = 32, 8


class Answer(Protocol):
    """`security/outbound_http.py`'s answer."""

    @property
    def status(self) -> int | None: ...
    @property
    def problem(self) -> str: ...
    @property
    def retry_after(self) -> float: ...
    @property
    def taken(self) -> bool: ...


class Post(Protocol):
    """`security/outbound_http.py`'s call: never raises for what the other side does."""

    async def __call__(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer: ...


@dataclass(frozen=True)
class Policy:
    """`base_ms`: the first rest; `dead_seconds`: for how long an endpoint may fail, and an event be refused."""

    base_ms: int
    dead_seconds: float
    call_seconds: float


@dataclass(frozen=True)
class Sent:
    attempt: Attempt
    retry_after_ms: int


def signature(secret: SecretText, id: str, timestamp: int, body: bytes) -> str:
    """One signature of Standard Webhooks."""
    key = base64.b64decode(secret.open().removeprefix("whsec_"))
    digest = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


class Sender:
    """Opens, signs, and posts one event."""

    def __init__(self, post: Post, sealer: Sealer, clock: Clock) -> None:
        self._post = post
        self._sealer = sealer
        self._clock = clock

    async def url(self, endpoint: HookEndpoint) -> SecretText:
        return await self._sealer.open(endpoint.tenant, None, "webhook-url", endpoint.id, 1, endpoint.url_sealed)

    async def secret(self, endpoint: HookEndpoint, secret: HookSecret) -> SecretText:
        place = ("webhook-secret", endpoint.id, secret.number)
        return await self._sealer.open(endpoint.tenant, None, *place, secret.sealed)

    async def send(self, endpoint: HookEndpoint, entry: str, lane: str, number: int) -> Sent:
        """Raises `Undecryptable`, `StoreUnavailable`; never for what the receiver does."""
        fields = body_of(endpoint.tenant, endpoint.id, entry)
        body = json.dumps(fields, separators=(",", ":")).encode()
        now, began = self._clock.now(), self._clock.monotonic()
        timestamp = int(now.timestamp())
        signatures = [
            signature(await self.secret(endpoint, secret), fields["id"], timestamp, body)
            for secret in endpoint.signing(now)
        ]
        answer = await self._post(
            (await self.url(endpoint)).open(),
            body,
            {
                "Content-Type": "application/json",
                "User-Agent": "nestor-webhooks/1",
                **trace_of(entry).headers,
                "webhook-id": fields["id"],
                "webhook-timestamp": str(timestamp),
                "webhook-signature": " ".join(signatures),
            },
        )
        attempt = Attempt(
            event=fields["id"],
            type=fields["type"],
            sequence=fields["sequence"],
            lane=lane,
            attempt=number,
            outcome=Outcome.DELIVERED if answer.taken else Outcome.FAILED,
            status=answer.status,
            problem=answer.problem,
            milliseconds=int((self._clock.monotonic() - began) * 1000),
            entry=entry,
        )
        return Sent(attempt, int(answer.retry_after * 1000))


class HookDelivery:
    """One replica's part. `tick` claims and sends; `run` does so until it is cancelled."""

    def __init__(self, store: Hooks, sender: Sender, disable: Disable, clock: Clock, policy: Policy) -> None:
        self._store = store
        self._sender = sender
        self._disable = disable
        self._clock = clock
        self._policy = policy
        self._claim_ms = int(policy.call_seconds * 1000) + 10_000
        self._slots = anyio.CapacityLimiter(_AT_ONCE)
        self._busy: dict[TenantId, int] = {}

    async def run(self) -> None:
        """Until cancelled; then what is being sent is handed back, and may come twice."""
        async with anyio.create_task_group() as tasks:
            while True:
                pause = _LONGEST_SLEEP
                try:
                    with metrics.ticking("webhooks"):
                        began = await self.tick(tasks)
                    if not began:
                        due_ms = await self._store.next_due_ms()
                        pause = min(_LONGEST_SLEEP, max(0.05, (due_ms or 0) / 1000)) if due_ms is not None else pause
                    else:
                        pause = 0.02
                except StoreUnavailable as exc:
                    log.warning("webhooks.store_unavailable", problem=exc.message)
                await anyio.sleep(pause)

    async def tick(self, tasks: TaskGroup) -> int:
        """Claim what is due, as far as there are free slots, and begin to send it; answers how many lanes."""
        free = int(self._slots.available_tokens)
        if free <= 0:
            return 0
        claimed = await self._store.claim_due(
            limit=free,
            each=lambda tenant: _AT_ONCE_A_TENANT - self._busy.get(tenant, 0),
            claim_ms=self._claim_ms,
        )
        for delivery in claimed:
            self._busy[delivery.tenant] = self._busy.get(delivery.tenant, 0) + 1
            tasks.start_soon(self._lane, delivery, name=f"webhook-{delivery.endpoint}")
        return len(claimed)

    async def _lane(self, delivery: Delivery) -> None:
        """Send a lane until it is empty, fails, or others have waited long enough."""
        following: Delivery | None = delivery
        try:
            async with self._slots:
                for _ in range(_ENTRIES_A_CLAIM):
                    if following is None:
                        return
                    current, following = following, None
                    try:
                        following = await self._one(current)
                    except anyio.get_cancelled_exc_class():
                        with anyio.move_on_after(2, shield=True):
                            await self._back(current)
                        raise
                if following is not None:
                    await self._back(following)
        except NestorError as exc:  # the claim ends by itself
            log.warning("webhook.not_sent", webhook=delivery.endpoint, problem=exc.message)
        except Exception as exc:  # the edge of a delivery: one that breaks must not end the others
            log.error("webhook.failed", webhook=delivery.endpoint, exc_info=exc)
        finally:
            left = self._busy[delivery.tenant] - 1
            if left:
                self._busy[delivery.tenant] = left
            else:
                del self._busy[delivery.tenant]

    async def _one(self, delivery: Delivery) -> Delivery | None:
        endpoint = await self._store.get(delivery.tenant, delivery.endpoint)
        if endpoint is None or not endpoint.enabled:
            await self._back(delivery)
            return None
        sent = await self._sender.send(endpoint, delivery.entry, delivery.lane, delivery.tries + 1)
        if sent.attempt.outcome is Outcome.DELIVERED:
            metrics.DELIVERIES.labels("webhook", Outcome.DELIVERED).inc()
            return await self._store.delivered(delivery, sent.attempt, claim_ms=self._claim_ms)
        return await self._not_taken(delivery, sent)

    async def _not_taken(self, delivery: Delivery, sent: Sent) -> Delivery | None:
        dead_ms = int(self._policy.dead_seconds * 1000)
        standing = await self._store.standing(delivery.tenant, delivery.endpoint)
        attempt = sent.attempt
        if attempt.status != GONE and self._is_refused_for_good(delivery, standing):
            metrics.DELIVERIES.labels("webhook", Outcome.GIVEN_UP).inc()
            given_up = replace(attempt, outcome=Outcome.GIVEN_UP)
            return await self._store.delivered(delivery, given_up, claim_ms=self._claim_ms)
        metrics.DELIVERIES.labels("webhook", Outcome.FAILED).inc()
        failures, failing_ms = await self._store.failed(
            delivery,
            attempt,
            lane_rests_ms=self._rest(delivery.tries + 1, _LONGEST_LANE_REST_MS, sent.retry_after_ms),
            endpoint_rests_ms=self._rest(standing.failures + 1, _LONGEST_ENDPOINT_REST_MS, sent.retry_after_ms),
        )
        log.warning(
            "webhook.not_delivered",
            webhook=delivery.endpoint,
            type=attempt.type,
            attempt=attempt.attempt,
            status=attempt.status,
            problem=attempt.problem,
        )
        if attempt.status == GONE:
            await self._disable(delivery.tenant, delivery.endpoint, "gone")
        elif failures and failing_ms > dead_ms:
            await self._disable(delivery.tenant, delivery.endpoint, "failing")
        return None

    def _is_refused_for_good(self, delivery: Delivery, standing: HookStanding) -> bool:
        """Whether this event is as old as an endpoint may fail for, while the endpoint takes others: it must not hold
        up its lane for ever."""
        now = self._clock.now()
        age = (now - parse_rfc3339(str(delivery.body()["timestamp"]))).total_seconds()
        since_ms = standing.failing_since_ms
        failing = 0.0 if since_ms is None else now.timestamp() - since_ms / 1000
        dead = self._policy.dead_seconds
        return delivery.tries >= _TRIES_AT_LEAST and age > dead and failing <= dead

    def _rest(self, failures: int, longest_ms: int, asked_ms: int) -> int:
        return backoff_ms(self._policy.base_ms, failures, longest_ms=longest_ms, asked_ms=asked_ms)

    async def _back(self, delivery: Delivery) -> None:
        try:
            await self._store.hand_back(delivery)
        except StoreUnavailable as exc:
            log.warning("webhook.not_handed_back", webhook=delivery.endpoint, problem=exc.message)
