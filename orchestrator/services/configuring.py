"""The steps that configure a runtime: settings, git providers, secrets in that order, then its conversation: begun, or
with a fork what its source gives, streamed from runtime to runtime."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial

from orchestrator.domain.conversation import Conversation, Held, Kind, Reason, StartFailed, Why
from orchestrator.domain.errors import Conflict, InvalidRequest, NestorError, NotFound, RuntimeUnreachable
from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.base import Gated
from orchestrator.drivers.values import Endpoint
from orchestrator.nested import stock, wire
from orchestrator.nested.client import RuntimeClient
from orchestrator.nested.refusals import Refused
from orchestrator.services.beside import beside
from orchestrator.services.drift import seen_by
from orchestrator.services.held import held_by
from orchestrator.services.reach import hosts_of
from orchestrator.services.start import Provisioning, Surroundings, client_of, made

CONVERSE_SECONDS = 150.0


async def read_configuration(start: Provisioning) -> None:
    """What the runtime is to be configured with, and of which generation it is: that first, so that a change in
    between is pushed once more instead of not at all."""
    tenant, user = start.conversation.tenant, start.conversation.user
    start.generation_pushed = await start.house.generation(tenant, user)
    start.bundle = await start.house.effective.bundle(tenant, user, own=start.conversation)
    start.is_read = True


async def read_ahead(start: Provisioning) -> None:
    """While the runtime comes up there is time for what is asked of others. What fails here is tried again by the step
    that it is for, which tells it."""
    with suppress(NestorError):
        await read_configuration(start)
        await permit(start.house, start.conversation, made(start.endpoint), made(start.bundle))
        start.is_permitted = True


async def push_settings(start: Provisioning) -> None:
    """First of the three: the runtime refuses the rest before it."""
    if not start.is_read:
        await read_configuration(start)
    start.is_read, bundle = False, made(start.bundle)  # a second try reads it anew
    if not start.is_permitted:
        await permit(start.house, start.conversation, made(start.endpoint), bundle)
    start.is_permitted = False
    async with client_of(start) as client:
        if made(start.endpoint).stock:
            if body := stock.settings_body(bundle.settings):
                await client.patch_settings(body)
            return
        await client.store_settings(wire.settings_body(bundle.settings), wire.settings_rest(bundle.settings))


async def permit(house: Surroundings, conversation: Conversation, endpoint: Endpoint, bundle: wire.Bundle) -> None:
    """Let the runtime reach what its configuration needs, where it reaches named hosts only."""
    if isinstance(house.driver, Gated):
        request = conversation.request
        brought = (await house.effective.brought(conversation)).start_body if request.has_start_body else None
        body = json.loads(brought.open()) if brought is not None else None
        hosts = hosts_of(bundle, request.repository, house.reached_hosts, start_body=body)
        await house.driver.permit(endpoint, hosts)


async def push_git_providers(start: Provisioning) -> None:
    """Second, and only when there are any."""
    bundle = made(start.bundle)
    async with client_of(start) as client:
        if made(start.endpoint).stock:
            await _put_secrets(client, stock.provider_secrets(bundle))
            return
        await client.post_git_providers(wire.providers_body(bundle.providers))


async def push_secrets(start: Provisioning) -> None:
    """Third, and only when there are any."""
    bundle = made(start.bundle)
    async with client_of(start) as client:
        if made(start.endpoint).stock:
            await _put_secrets(client, bundle.secrets)
            return
        await client.post_secrets(wire.secrets_body(bundle.secrets))


async def holds(start: Provisioning) -> Held:
    """What the runtime was configured with. A change that came meanwhile leaves that unknown."""
    now = await start.house.generation(start.conversation.tenant, start.conversation.user)
    held = replace(
        held_by(made(start.bundle), made(start.keys).inner, now, at=start.house.clock.now()), seen=start.seen
    )
    return held if now == start.generation_pushed else replace(held, generation="", digest="")


async def _put_secrets(client: RuntimeClient, secrets: Mapping[str, SecretText]) -> None:
    for name, value in secrets.items():
        await client.put_secret(name, value)


async def create_nested_conversation(start: Provisioning) -> None:
    """Under our own id, so that a second try joins the first; the repository is cloned in this call. A bare runtime has
    none."""
    request, id = start.conversation.request, start.conversation.id
    if start.conversation.kind is Kind.RUNTIME:
        async with client_of(start) as client:
            await _look(start, client)
        return
    own = (await start.house.effective.brought(start.conversation)).start_body if request.has_start_body else None
    if own is not None:  # both kinds of agent servers know their own body
        body = {**json.loads(own.open()), "conversation_id": id}
    elif made(start.endpoint).stock:
        if request.repository is not None:
            hint = "leave repository out and let the agent clone it, or use Nestor's own runtime"
            raise StartFailed(Why(Reason.CONFIG_REJECTED, "this image's agent server clones no repository", hint))
        workspace = made(start.endpoint).workspace
        body = stock.conversation_body(start.conversation.id, request, made(start.bundle), workspace)
    else:
        body = wire.conversation_body(id, request)
    async with client_of(start) as client:
        look = partial(_look, start, client)
        create = partial(client.create_conversation, body, timeout=CONVERSE_SECONDS)
        if own is None and request.initial_message is None and request.fork_of is None:
            await beside(create, look)  # nobody works there yet, who might change what is looked at
            return
        await look()
        if request.fork_of is not None and not start.conversation.was_ready:
            await _take_in(start, client)
        await create()


async def _take_in(start: Provisioning, client: RuntimeClient) -> None:
    """What is undone with the volume, as long as it was never ready. Raises `StartFailed` where the source cannot be
    had and another try would not mend it."""
    try:
        async with made(start.house.source)(start.conversation) as pieces:
            await client.take_in(start.conversation.id, pieces, timeout=start.house.step_seconds["converse"])
    except (NotFound, Conflict, InvalidRequest) as exc:
        message = f"the conversation that is forked cannot be copied: {exc.message}"
        raise StartFailed(Why(Reason.CONFIG_REJECTED, message, exc.hint or "fork another one")) from exc


async def _look(start: Provisioning, client: RuntimeClient) -> None:
    """What the runtime has now of what it was told."""
    key = made(start.keys).inner
    held = held_by(made(start.bundle), key, "", at=start.house.clock.now())
    start.seen = None
    with suppress(Refused, RuntimeUnreachable):  # then the first round pushes once more
        start.seen = await seen_by(client, held, key, is_stock=made(start.endpoint).stock)
