"""The webhooks of a tenant: made, changed, rotated, tested, and looked at. `hook_delivery.py` sends what they are told.

An endpoint's address and secrets are sealed before they reach the store. A secret is shown by the call that makes it
and never again.
"""

import base64
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

from orchestrator.domain.clock import Clock
from orchestrator.domain.conditions import ALWAYS, Condition
from orchestrator.domain.errors import Conflict, NotFound
from orchestrator.domain.hooks import (
    ATTEMPTS_KEPT,
    ENDPOINTS_MAXIMUM,
    TENANT_LANE,
    TEST,
    Attempt,
    Draft,
    HookEndpoint,
    HookEvent,
    HookSecret,
    HookStanding,
    Outcome,
    draft,
)
from orchestrator.domain.ids import REPEATABLE_FOR, HookId, TenantId, new_uuid
from orchestrator.domain.secrets import SecretText
from orchestrator.services.hook_delivery import Sender
from orchestrator.services.layers import Sealer
from orchestrator.state.base import Hooks

_TRIES = 8
_SECRETS = 2


class Targets(Protocol):
    """`security/outbound.py`'s guard, as far as it judges without resolving. Raises `InvalidRequest`."""

    def read(self, url: str) -> object: ...


@dataclass(frozen=True)
class Changes:
    """What a PATCH holds; None: not given."""

    url: str | None = None
    events: Sequence[HookEvent] | None = None
    description: str | None = None
    enabled: bool | None = None


def new_signing_secret() -> SecretText:
    """As Standard Webhooks write it."""
    return SecretText("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())


class Webhooks:
    """Every method works on one tenant's endpoints."""

    def __init__(
        self, store: Hooks, sealer: Sealer, targets: Targets, sender: Sender, clock: Clock, *, queue_bytes: int
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._targets = targets
        self._sender = sender
        self._clock = clock
        self._queue_bytes = queue_bytes

    async def create(
        self,
        tenant: TenantId,
        url: str,
        events: Sequence[HookEvent],
        description: str,
        *,
        natural_id: str | None = None,
    ) -> tuple[HookEndpoint, SecretText]:
        """Raises `InvalidRequest` for an address that may not be called, and `LimitReached`.

        `natural_id` is that of a request which may be repeated: the webhook that it made is answered again.
        """
        self._targets.read(url)
        now, secret = self._clock.now(), new_signing_secret()
        present = await self._store.get(tenant, HookId(natural_id)) if natural_id is not None else None
        if present is not None and now - present.created_at < REPEATABLE_FOR and present.version == 1:
            as_made = (await self.url(present), present.events, present.description)
            if as_made == (url, tuple(dict.fromkeys(events)), description):
                return present, await self._sender.secret(present, present.secrets[0])
        id = HookId(natural_id) if natural_id is not None and present is None else HookId(new_uuid())
        endpoint = HookEndpoint(
            id=id,
            tenant=tenant,
            url_sealed=await self._seal(tenant, id, "url", 1, SecretText(url)),
            events=tuple(dict.fromkeys(events)),
            description=description,
            secrets=(await self._new(tenant, id, 1, secret),),
            created_at=now,
            updated_at=now,
        )
        await self._put(endpoint, 0)
        return endpoint, secret

    async def get(self, tenant: TenantId, id: HookId) -> HookEndpoint:
        """Raises `NotFound`."""
        found = await self._store.get(tenant, id)
        if found is None:
            raise NotFound("there is no such webhook")
        return found

    async def list(self, tenant: TenantId) -> Sequence[HookEndpoint]:
        return await self._store.all(tenant)

    async def url(self, endpoint: HookEndpoint) -> str:
        return (await self._sender.url(endpoint)).open()

    async def standing(self, endpoint: HookEndpoint) -> HookStanding:
        return await self._store.standing(endpoint.tenant, endpoint.id)

    async def change(
        self, tenant: TenantId, id: HookId, wanted: Changes, *, condition: Condition = ALWAYS
    ) -> HookEndpoint:
        """Raises `NotFound`, `InvalidRequest`, `PreconditionFailed`, `Conflict`."""
        if wanted.url is not None:
            self._targets.read(wanted.url)
            sealed = await self._seal(tenant, id, "url", 1, SecretText(wanted.url))

        def changed(present: HookEndpoint) -> HookEndpoint:
            after = present
            if wanted.url is not None:
                after = replace(after, url_sealed=sealed)
            if wanted.events is not None:
                after = replace(after, events=tuple(dict.fromkeys(wanted.events)))
            if wanted.description is not None:
                after = replace(after, description=wanted.description)
            if wanted.enabled is not None and wanted.enabled is not after.enabled:
                reason = "" if wanted.enabled else "requested"
                after = replace(after, enabled=wanted.enabled, disabled_reason=reason)
            return after

        return await self._change(tenant, id, changed, condition)

    async def rotate(
        self, tenant: TenantId, id: HookId, *, overlap_seconds: float, condition: Condition = ALWAYS
    ) -> tuple[HookEndpoint, SecretText]:
        """A new secret signs from now on; the one before it signs beside it for the overlap. Raises `NotFound`,
        `PreconditionFailed`, `Conflict`."""
        secret, now = new_signing_secret(), self._clock.now()
        until = now + timedelta(seconds=overlap_seconds)
        for _ in range(_TRIES):
            present = await self.get(tenant, id)
            condition.check(present.version, "the webhook")
            number = present.secrets[0].number + 1
            last = replace(present.secrets[0], expires_at=until)
            kept = (await self._new(tenant, id, number, secret), *((last,) if overlap_seconds > 0 else ()))
            after = replace(present, secrets=kept[:_SECRETS], updated_at=now, version=present.version + 1)
            if await self._put(after, present.version):
                return after, secret
        raise Conflict("the webhook is changing quickly", hint="try again")

    async def delete(self, tenant: TenantId, id: HookId, *, condition: Condition = ALWAYS) -> None:
        """With what waits for it. Raises `NotFound`, `PreconditionFailed`, `Conflict`."""
        if not condition.is_some:  # also one that cannot be read
            if not await self._store.delete(tenant, id):
                raise NotFound("there is no such webhook")
            return
        for _ in range(_TRIES):
            present = await self.get(tenant, id)
            condition.check(present.version, "the webhook")
            if await self._store.delete(tenant, id, expected_version=present.version):
                return
        raise Conflict("the webhook is changing quickly", hint="try again")

    async def disable(self, tenant: TenantId, id: HookId, reason: str) -> None:
        """Told to the tenant's others. One that is disabled, changed meanwhile or gone is left as it is."""
        present = await self._store.get(tenant, id)
        if present is None or not present.enabled:
            return
        now = self._clock.now()
        after = replace(present, enabled=False, disabled_reason=reason, updated_at=now, version=present.version + 1)
        news = draft(HookEvent.ENDPOINT_DISABLED, tenant, now, {"webhook_id": id, "reason": reason})
        await self._put(after, present.version, [news])

    async def test(self, tenant: TenantId, id: HookId) -> Attempt:
        """Send one event now, whatever waits and whether it is enabled; what came of it is in the log as well."""
        endpoint = await self.get(tenant, id)
        told = draft(TEST, tenant, self._clock.now(), {"webhook_id": id})
        attempt = await self._sender.send(endpoint, f"0:{told.text}", TENANT_LANE, 1)
        noted = await self._store.note(tenant, id, attempt.attempt)
        return replace(attempt.attempt, id=noted, at=self._clock.now())

    async def deliveries(self, tenant: TenantId, id: HookId, *, before: str | None, limit: int) -> Sequence[Attempt]:
        """The latest attempts first. Raises `NotFound`."""
        await self.get(tenant, id)
        return await self._store.attempts(tenant, id, before=before, limit=limit)

    async def many_deliveries(self, tenant: TenantId, id: HookId, ids: Sequence[str]) -> Sequence[Attempt | None]:
        """These attempts, in that order; None for what is not in the log. Raises `NotFound`."""
        await self.get(tenant, id)
        there = {one.id: one for one in await self._store.attempts(tenant, id, before=None, limit=ATTEMPTS_KEPT)}
        return [there.get(one) for one in ids]

    async def redeliver(self, tenant: TenantId, id: HookId, attempt: str) -> Attempt:
        """Put it into the queue once more, under the id that it had. Raises `NotFound`, `Conflict`, `LimitReached`."""
        endpoint = await self.get(tenant, id)
        found = await self._store.attempt(tenant, id, attempt)
        if found is None:
            raise NotFound("there is no such delivery", hint="the last 200 attempts of a webhook are kept")
        if not await self._store.again(tenant, id, found):
            hint = "enable it" if not endpoint.enabled else None
            raise Conflict("the webhook is disabled", hint=hint)
        return found

    async def redeliver_from(self, tenant: TenantId, id: HookId, first: int) -> tuple[Sequence[Attempt], bool]:
        """Put every event that was told, from number `first` on, into the queue once more, in order, under the ids that
        they had; what is being tried still is there already. Answers the latest attempt of each, and whether the log
        reaches back so far. Raises as `redeliver`; then nothing is put there."""
        endpoint = await self.get(tenant, id)
        log = await self._store.attempts(tenant, id, before=None, limit=ATTEMPTS_KEPT)
        latest: dict[str, Attempt] = {}
        for one in log:  # the latest first
            if one.sequence:
                latest.setdefault(one.event, one)
        chosen = [one for one in latest.values() if (one.sequence or 0) >= first and one.outcome is not Outcome.FAILED]
        chosen.sort(key=lambda one: one.sequence or 0)
        if not endpoint.enabled or (chosen and not await self._store.again(tenant, id, *chosen)):
            raise Conflict("the webhook is disabled", hint="enable it")
        oldest = min((one.sequence or 0 for one in latest.values()), default=first)
        return chosen, len(log) < ATTEMPTS_KEPT or oldest <= first

    async def _change(
        self, tenant: TenantId, id: HookId, change: Callable[[HookEndpoint], HookEndpoint], condition: Condition
    ) -> HookEndpoint:
        for _ in range(_TRIES):
            present = await self.get(tenant, id)
            condition.check(present.version, "the webhook")
            after = change(present)
            if after == present:
                return present
            after = replace(after, updated_at=self._clock.now(), version=present.version + 1)
            if await self._put(after, present.version):
                return after
        raise Conflict("the webhook is changing quickly", hint="try again")

    async def _put(self, endpoint: HookEndpoint, expected_version: int, told: Sequence[Draft] = ()) -> bool:
        return await self._store.put(
            endpoint,
            expected_version=expected_version,
            queue_bytes=self._queue_bytes,
            limit=ENDPOINTS_MAXIMUM,
            told=told,
        )

    async def _new(self, tenant: TenantId, id: HookId, number: int, secret: SecretText) -> HookSecret:
        return HookSecret(number, await self._seal(tenant, id, "secret", number, secret))

    async def _seal(self, tenant: TenantId, id: HookId, kind: str, number: int, value: SecretText) -> str:
        return await self._sealer.seal(tenant, None, f"webhook-{kind}", id, number, value)
