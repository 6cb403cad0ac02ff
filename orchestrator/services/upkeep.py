"""Keeping the configuration of live runtimes true: what changed is pushed by the conversation's own round.

Each round compares two short texts, the generation that is wanted and the one that is held; only where they differ is
anything opened, and only where the digests differ is anything sent. Rounds are spread over time by their due times, so
a change of a tenant with a thousand runtimes is no stampede. A push that fails is tried again, later each time, and is
told; it never harms the runtime.

Once a minute the runtime is asked whether it still holds what it was told (`drift.py`). Where somebody changed that
there, the parts that differ are pushed again, and nothing of what others added is taken out.
"""

import random
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta

import anyio
import structlog

from orchestrator.domain.conversation import Conversation, Held, Kind, PushTrouble
from orchestrator.domain.drift import Part, Seen, is_due, repaired, seen
from orchestrator.domain.errors import (
    DriverUnavailable,
    NestorError,
    RuntimeNotFound,
    RuntimeUnreachable,
    Sealed,
    Undecryptable,
)
from orchestrator.drivers.values import Handle
from orchestrator.nested import stock, wire
from orchestrator.nested.client import RuntimeClient
from orchestrator.nested.refusals import Refused
from orchestrator.nested.wire import Bundle
from orchestrator.services.configuring import permit
from orchestrator.services.drift import Looks, seen_by
from orchestrator.services.held import held_by
from orchestrator.services.start import Surroundings, made, save
from orchestrator.state.base import Lease
from orchestrator.telemetry import metrics

log = structlog.get_logger(__name__)
_PUSH_SECONDS, _LOOK_SECONDS = 20.0, 5.0
_FAILURES = (RuntimeUnreachable, Refused, Sealed, Undecryptable, RuntimeNotFound, DriverUnavailable, TimeoutError)
_FIRST_REST, _LONGEST_REST = 2.0, 300.0


class Upkeep:
    """Each push can be repeated: what a crash broke off is pushed again."""

    def __init__(self, house: Surroundings, looks: Looks) -> None:
        self._house = house
        self._looks = looks

    async def keep(self, lease: Lease, conversation: Conversation, handle: Handle) -> Conversation:
        """Under the lease of a ready conversation; answers the record as it is afterwards. Raises `LeaseLost`,
        `StoreUnavailable`."""
        wanted = await self._house.generation(conversation.tenant, conversation.user)
        held, trouble = made(conversation.runtime).held, conversation.trouble
        if trouble is not None and trouble.retry_at > self._house.clock.now():
            return conversation
        parts: Collection[Part] = ()
        if held is not None and held.generation == wanted and trouble is None:
            conversation, parts = await self._look(lease, conversation, handle, held)
            if not parts:
                return conversation
        elif is_due(conversation.drift, now=self._house.clock.now()):
            parts = made(conversation.drift).parts
        try:
            with anyio.fail_after(_PUSH_SECONDS):
                taken = await self._push(lease, conversation, handle, wanted, parts)
        except _FAILURES as exc:
            return await self._failed(lease, conversation, exc)
        runtime = replace(made(conversation.runtime), held=taken)
        pushed = self._mended(conversation, taken, parts)
        return await save(self._house.conversations, lease, replace(pushed, runtime=runtime, trouble=None))

    async def _look(
        self, lease: Lease, conversation: Conversation, handle: Handle, held: Held
    ) -> tuple[Conversation, Collection[Part]]:
        """The record with the drift that there is now, and what of it is to be pushed now."""
        now, drift = self._house.clock.now(), conversation.drift
        if not self._looks.is_due(conversation, held):
            return conversation, ()
        try:
            with anyio.fail_after(_LOOK_SECONDS):
                found = await self._ask(lease, conversation, handle, held)
        except _FAILURES as exc:
            log.info("configuration.not_compared", conversation=conversation.id, problem=_problem(exc))
            return conversation, ()
        if found is None:
            return conversation, ()
        if held.seen is None:  # what it had after its push was not asked, so nothing tells what came since
            return conversation, tuple(Part)
        parts = held.seen.differs(found)
        if not parts:
            if drift is not None and drift.repaired_at is None:  # whoever changed it changed it back
                conversation = await save(self._house.conversations, lease, replace(conversation, drift=None))
            return conversation, ()
        noticed = seen(drift, parts, now=now)
        if noticed != drift:
            log.warning("configuration.drifted", conversation=conversation.id, parts=", ".join(parts))
            for part in parts:
                metrics.DRIFTS.labels(part).inc()
            conversation = await save(self._house.conversations, lease, replace(conversation, drift=noticed))
        return conversation, parts if is_due(noticed, now=now) else ()

    async def _ask(self, lease: Lease, conversation: Conversation, handle: Handle, held: Held) -> Seen | None:
        runtime, key = made(conversation.runtime), made(await self._house.keys.inner_key(conversation))
        is_stock = held.seen is not None and not held.seen.values
        if held.seen is None:
            endpoint = (await self._house.driver.inspect(handle)).endpoint
            is_stock = endpoint is not None and endpoint.stock
        async with self._house.clients.open(
            f"http://{runtime.address}", key, fence=lease.fence, generation=runtime.generation
        ) as client:
            return await seen_by(client, held, key, is_stock=is_stock)

    def _mended(self, conversation: Conversation, taken: Held, parts: Collection[Part]) -> Conversation:
        drift, before = conversation.drift, made(conversation.runtime).held
        pushed = parts or before is None or before.digest != taken.digest
        if drift is None or drift.repaired_at is not None or not pushed:
            return conversation
        log.info("configuration.repaired", conversation=conversation.id, parts=", ".join(drift.parts))
        return replace(conversation, drift=repaired(drift, now=self._house.clock.now()))

    async def _push(
        self, lease: Lease, conversation: Conversation, handle: Handle, wanted: str, parts: Collection[Part]
    ) -> Held:
        """All of it where it changed; else the `parts` that drifted."""
        bundle = await self._house.effective.bundle(conversation.tenant, conversation.user, own=conversation)
        key, runtime = made(await self._house.keys.inner_key(conversation)), made(conversation.runtime)
        present, held = held_by(bundle, key, wanted, at=self._house.clock.now()), runtime.held
        same = held is not None and held.digest == present.digest
        if held is not None and same and not parts:
            return replace(held, generation=wanted)  # changed and changed back, or in a layer that a stronger one hides
        endpoint = (await self._house.driver.inspect(handle)).endpoint
        if endpoint is not None:
            await permit(self._house, conversation, endpoint, bundle)
        async with self._house.clients.open(
            f"http://{runtime.address}", key, fence=lease.fence, generation=runtime.generation
        ) as client:
            is_stock = endpoint is not None and endpoint.stock
            if is_stock:
                await push_stock(client, conversation, bundle, held)
            elif same:
                await push_parts(client, bundle, parts)
            else:
                await push_own(client, bundle, held)
            present = replace(present, seen=await seen_by(client, present, key, is_stock=is_stock))
        log.info("configuration.pushed", conversation=conversation.id, generation=wanted)
        return present

    async def _failed(self, lease: Lease, conversation: Conversation, exc: Exception) -> Conversation:
        tries = conversation.trouble.tries + 1 if conversation.trouble is not None else 1
        rest = min(_LONGEST_REST, _FIRST_REST * 2 ** min(tries - 1, 20)) * random.uniform(0.7, 1.0)  # noqa: S311
        problem = _problem(exc)
        log.warning("configuration.not_pushed", conversation=conversation.id, problem=problem, tries=tries)
        trouble = PushTrouble(problem, tries, self._house.clock.now() + timedelta(seconds=rest))
        return await save(self._house.conversations, lease, replace(conversation, trouble=trouble))


async def push_parts(client: RuntimeClient, bundle: Bundle, parts: Collection[Part]) -> None:
    """What is wanted of these parts, over whatever is there: what others added beside it stays."""
    if Part.SETTINGS in parts:
        if bundle.settings.get("older"):
            await client.post_settings(wire.settings_body(bundle.settings))
        if body := stock.settings_body(bundle.settings):
            await client.patch_settings(body)
    if Part.PROVIDERS in parts and bundle.providers:
        await client.post_git_providers(wire.providers_body(bundle.providers, keep_others=True))
    if Part.SECRETS in parts:
        for name, value in bundle.secrets.items():
            await client.put_secret(name, value)


async def push_own(client: RuntimeClient, bundle: Bundle, held: Held | None) -> None:
    """A base address that is wanted no more is said so; the flat record keeps what it lacks."""
    flat = {"llm_base_url": "", **wire.settings_body(bundle.settings)}
    await client.store_settings(flat, wire.settings_rest(bundle.settings))
    if bundle.providers:
        await client.post_git_providers(wire.providers_body(bundle.providers))
    elif held is None or held.providers:
        await client.unset_git_providers()
    for name, value in bundle.secrets.items():
        await client.put_secret(name, value)
    for name in _removed(held, bundle):
        await client.delete_secret(name)


async def push_stock(client: RuntimeClient, conversation: Conversation, bundle: Bundle, held: Held | None) -> None:
    """Tokens travel as secrets; the conversation that runs has a copy of its own, from which nothing can be removed."""
    if body := stock.settings_body(bundle.settings):
        await client.patch_settings(body)
    secrets = {**stock.provider_secrets(bundle), **bundle.secrets}
    for name, value in secrets.items():
        await client.put_secret(name, value)
    gone = [] if held is None else [stock.secret_of_provider(name) for name in held.providers]
    for name in [*_removed(held, bundle), *gone]:
        if name not in secrets:
            await client.delete_secret(name)
    if secrets and conversation.kind is Kind.CONVERSATION:
        await client.update_conversation_secrets(conversation.id, secrets)


def _problem(exc: Exception) -> str:
    return exc.message if isinstance(exc, NestorError) else "the runtime did not take it in time"


def _removed(held: Held | None, bundle: Bundle) -> list[str]:
    return [] if held is None else [name for name in held.secrets if name not in bundle.secrets]
