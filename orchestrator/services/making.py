"""The steps that make a runtime: its volume, its claim on the engine, its process, and its keys. Each with its undo."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import anyio

from orchestrator.domain.conversation import Phase, Reason, StartFailed, Why
from orchestrator.domain.errors import ImageRefused, RuntimeNotFound
from orchestrator.domain.images import Pin
from orchestrator.domain.secrets import SecretText, new_secret
from orchestrator.drivers.base import Conjoint, Paced
from orchestrator.drivers.errors import MAKE_SPACE, ClaimTaken, ImageUnavailable, says_no_space
from orchestrator.drivers.values import Condition, Dialect, ExitCause, Limits, RuntimeSpec, ServingKeys
from orchestrator.nested.client import RuntimeClient
from orchestrator.services.beside import beside
from orchestrator.services.keys import RuntimeKeys
from orchestrator.services.reach import with_port
from orchestrator.services.start import Provisioning, advance_to, client_of, made

_SHORTEST_REST, _LONGEST_REST = 0.002, 0.05  # between two questions whether it answers
_LOOK_SECONDS = 0.2  # between two looks whether it has ended


async def ensure_volume(start: Provisioning) -> None:
    """The workspace and the runtime's state: made once, kept over generations. The keys of this generation are stored,
    sealed, meanwhile: before anything bears them."""
    volume = partial(start.house.driver.ensure_volume, start.labels, fence=start.lease.fence)
    await beside(volume, partial(_renew_keys, start))


def makes_both(start: Provisioning) -> bool:
    """Whether the volume is made with the runtime, in `create_runtime`."""
    return isinstance(start.house.driver, Conjoint)


async def _renew_keys(start: Provisioning) -> None:
    runtime, start.keys = await start.house.keys.renew(start.conversation, start.generation)
    await start.store(replace(start.conversation, runtime=runtime))


async def remove_new_volume(start: Provisioning, _note: str) -> None:
    """A conversation that was never ready has no work to keep."""
    if not start.conversation.was_ready:
        with suppress(ClaimTaken):  # the id is another tenant's: nothing of ours was made
            await start.house.driver.remove_volume(start.labels, fence=start.lease.fence)


async def create_runtime(start: Provisioning) -> None:
    """Claim the name, and where the driver does that make the volume meanwhile. The keys of this generation are in the
    journal before anything bears them: a runtime whose keys were lost with the state server could not be taken over.
    What is made here bears none yet, so they are made and the journal is waited for meanwhile."""
    pin = await _pinned(start)
    if pin != start.conversation.image:
        await start.store(replace(start.conversation, image=pin))
    request = start.conversation.request
    limits = Limits().times(request.size)
    image = pin.id if pin is not None else request.image
    variables = start.house.variables
    spec = RuntimeSpec(name=start.name, labels=start.labels, image=image, environment=variables, limits=limits)
    await beside(partial(_journal, start), partial(_claim, start, spec, pin))


async def undo_create(start: Provisioning, note: str) -> None:
    """All that `create_runtime` made."""
    await destroy_runtime(start, note)
    if makes_both(start):
        await remove_new_volume(start, note)


async def _journal(start: Provisioning) -> None:
    if makes_both(start):
        await _renew_keys(start)
    await start.house.archived(start.conversation.tenant)


async def _claim(start: Provisioning, spec: RuntimeSpec, pin: Pin | None) -> None:
    driver = start.house.driver
    create = driver.create_with_volume if isinstance(driver, Conjoint) else driver.create
    try:
        start.handle = await create(spec, fence=start.lease.fence)
    except ImageUnavailable as exc:
        if pin is None:
            raise
        raise ImageUnavailable(
            f"the image that this {start.conversation.kind} stays on is gone: {pin.name} ({pin.id})",
            hint="bring it back (docker load, docker pull), or choose another with POST "
            f"/api/v2/{start.conversation.kind}s/{start.conversation.id}/upgrade; then start it",
        ) from exc


async def _pinned(start: Provisioning) -> Pin | None:
    """The image that it stays on; found now for one that is older than pins, or that came while the engine was away."""
    known, images = start.conversation.image, start.house.images
    if known is not None or images is None:
        return known
    try:
        return await images.pin_now(start.lease.tenant, start.conversation.request.image, start.conversation.id)
    except ImageRefused as exc:
        raise StartFailed(Why(Reason.IMAGE_REFUSED, exc.message, exc.hint or "")) from exc


async def destroy_runtime(start: Provisioning, note: str) -> None:
    """By name: the reply of `create` may have been lost, or another replica may have sent it."""
    start.house.withdraw(start.conversation)
    handle = await start.house.driver.find(note)
    if handle is not None:
        await start.house.driver.destroy(handle, fence=start.lease.fence)
    if start.house.pool is not None:
        await start.house.pool.gone(note)


async def start_runtime(start: Provisioning) -> None:
    """Start it, dormant. The init key is known to this saga alone, and of use only until `init`."""
    start.init_key, keys = new_secret(), made(start.keys)
    serving = ServingKeys(session=keys.inner, state=keys.state)
    start.endpoint = await start.house.driver.start(
        made(start.handle), fence=start.lease.fence, init_key=start.init_key, serving=serving
    )


async def wait_alive(start: Provisioning) -> None:
    """Until the runtime answers. One that ends is told at once, with its last lines, not after the deadline."""
    seconds, driver = start.house.alive_seconds, start.house.driver
    began = looked = anyio.current_time()
    async with client_of(start) as client:
        with anyio.move_on_after(seconds):
            while not await _answers(start, client):
                now = anyio.current_time()
                if now - looked >= _LOOK_SECONDS:
                    await _raise_if_ended(start)
                    looked = now
                # A hundredth of what it took so far is what is lost by having asked a moment too early.
                await anyio.sleep(min(_LONGEST_REST, max(_SHORTEST_REST, (now - began) / 50)))
            if isinstance(driver, Paced):
                driver.came_up(made(start.handle))
            return
    raise StartFailed(
        Why(
            Reason.HEALTH_TIMEOUT,
            f"the runtime did not answer within {seconds:.0f} seconds",
            "the last log lines say why; check the runtime command or image",
            log_tail=tuple(await start.house.driver.logs(made(start.handle))),
        )
    )


async def _answers(start: Provisioning, client: RuntimeClient) -> bool:
    if made(start.endpoint).stock:
        return await client.alive()
    return await client.meets(made(start.init_key))


async def _raise_if_ended(start: Provisioning) -> None:
    handle = made(start.handle)
    try:
        observed = await start.house.driver.inspect(handle)
    except RuntimeNotFound:
        why = Why(Reason.RUNTIME_LOST, "the runtime was removed while it started", "start it again", retryable=True)
        raise StartFailed(why) from None
    if observed.condition is not Condition.EXITED:
        return
    oom = observed.cause is ExitCause.OOM
    tail = tuple(await start.house.driver.logs(handle))
    if says_no_space("\n".join(tail)):  # before anybody else could have written there
        message = f"the runtime ended at once (exit status {observed.exit_code}): no space is left"
        raise StartFailed(Why(Reason.DISK_FULL, message, MAKE_SPACE, retryable=True, log_tail=tail))
    raise StartFailed(
        Why(
            Reason.OOM if oom else Reason.IMAGE_START,
            "the runtime ran out of memory" if oom else f"the runtime ended at once (exit status {observed.exit_code})",
            "give it more memory" if oom else "the last log lines say why; check the runtime command or image",
            log_tail=tail,
        )
    )


async def bind_runtime(start: Provisioning) -> None:
    """The keys of this generation. From here on the runtime belongs to this conversation and to nobody else."""
    keys = made(start.keys)
    if made(start.endpoint).stock:
        await _bind_stock(start, keys)
        return
    body = await init_body(start, keys)
    async with client_of(start) as client:
        await beside(
            partial(start.store, advance_to(start, Phase.CONFIGURING)),
            partial(client.init, made(start.init_key), body),
        )
    start.init_key = None


async def init_body(start: Provisioning, keys: RuntimeKeys) -> Mapping[str, Any]:
    """What a dormant runtime is told. Raises `Undecryptable`."""
    body: dict[str, Any] = {
        "session_api_keys": [keys.inner.open()],
        "secret_key": keys.state.open(),
        "public_urls": list(start.house.public_urls(start.conversation)),
        "generation": start.generation,
        "allow_set_conversation_id": True,
        "allow_http_hosts": list(start.house.allow_http_hosts),
        "allow_cors_origins": list(start.house.allowed_origins),
        "lookup_secret_hosts": [with_port(host) for host in start.house.reached_hosts],
    }
    if (webhook := start.house.webhook(start.conversation, start.endpoint)) is not None:
        body["webhooks"] = [webhook]
    brought = await start.house.effective.brought(start.conversation)
    body["env"] = {**_about_itself(start), **_opened(brought.environment)}
    if brought.session_key and start.house.keys_in_commands:
        body["command_env"] = {"SESSION_API_KEY": keys.session.open()}
        body["session_api_keys"].append(keys.session.open())  # such a program is a client of its own runtime, too
    return body


def _about_itself(start: Provisioning) -> dict[str, str]:
    """What every shell in a runtime may know: under which id it is asked about. No secret, and not masked."""
    return {"SANDBOX_ID": made(start.conversation.runtime).id}


def _opened(variables: Mapping[str, SecretText]) -> dict[str, str]:
    return {name: value.open() for name, value in variables.items()}


async def _bind_stock(start: Provisioning, keys: RuntimeKeys) -> None:
    """As `bind_runtime`, where no proof can be had: the engine is asked once more who has this address."""
    observed = await start.house.driver.inspect(made(start.handle))
    if observed.endpoint != start.endpoint:
        why = Why(Reason.RUNTIME_LOST, "the runtime moved while it started", "start it again", retryable=True)
        raise StartFailed(why)
    environment = _opened((await start.house.effective.brought(start.conversation)).environment)
    if made(start.endpoint).dialect is Dialect.DORMANT:
        body: dict[str, Any] = {"session_api_keys": [keys.inner.open()], "secret_key": keys.state.open()}
        body["env"] = {**_about_itself(start), **environment}
        async with client_of(start) as client:
            await client.init_unproven(made(start.init_key), body)
    elif environment:
        hint = "leave environment out, or use Nestor's own runtime"
        raise StartFailed(Why(Reason.CONFIG_REJECTED, "this image's agent server takes no variables", hint))
    start.init_key = None
    await start.store(advance_to(start, Phase.CONFIGURING))
