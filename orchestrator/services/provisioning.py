"""Provisioning: the steps that bring one conversation from `pending` to `ready`, each with its undo.

`workers.py` runs them through `saga.py` under a fenced lease. Names and keys are made before anything bears them; the
commit point is `publish`, one compare-and-set. A step raises `StartFailed` (with the reason that users see), a
`NestorError`, or lets the deadline end it.
"""

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.domain.conversation import REQUESTED, Phase, advance
from orchestrator.domain.errors import StoreUnavailable
from orchestrator.services.configuring import (
    create_nested_conversation,
    holds,
    push_git_providers,
    push_secrets,
    push_settings,
    read_ahead,
)
from orchestrator.services.making import (
    bind_runtime,
    create_runtime,
    destroy_runtime,
    ensure_volume,
    makes_both,
    remove_new_volume,
    start_runtime,
    undo_create,
    wait_alive,
)
from orchestrator.services.saga import Logged, Step
from orchestrator.services.start import Provisioning, made


async def come_alive(start: Provisioning) -> None:
    """Until the runtime answers; what it will be told is read meanwhile."""
    await read_ahead(start)
    await wait_alive(start)


async def publish_route(start: Provisioning) -> None:
    """The commit point: phase `ready` and the route in one compare-and-set. A lost reply is read back, never undone."""
    runtime = made(start.conversation.runtime)
    endpoint = made(start.endpoint)
    if start.bundle is not None:  # else this is a second try
        start.held, start.bundle = await holds(start), None
    exposed = replace(start.conversation, runtime=replace(runtime, address=f"{endpoint.host}:{endpoint.port}"))
    exposed = replace(exposed, runtime=replace(made(exposed.runtime), held=start.held), trouble=None, drift=None)
    port = start.house.expose(exposed)
    started = replace(made(exposed.runtime), public_port=port, started_at=start.house.clock.now())
    exposed = replace(exposed, runtime=started, was_ready=True)
    ready = advance(exposed, Phase.READY, why=REQUESTED, now=start.house.clock.now())
    try:
        await start.store(ready)
    except StoreUnavailable:
        stored = await start.house.conversations.get(start.lease.tenant, start.lease.conversation)
        committed = stored is not None and stored.phase is Phase.READY and stored.runtime is not None
        if not committed or made(made(stored).runtime).generation != start.generation:
            raise
        start.conversation = made(stored)
    start.house.published(start.conversation)


def _is_warm(start: Provisioning) -> bool:
    return start.warm


STEPS: Sequence[Step[Provisioning]] = (
    Step("volume", ensure_volume, undo=remove_new_volume, needless=lambda start: _is_warm(start) or makes_both(start)),
    Step("create", create_runtime, undo=undo_create, note=lambda start: start.name, needless=_is_warm),
    # Undone by "create", as everything that lives in the runtime.
    Step("start", start_runtime, needless=_is_warm, logged=Logged.BESIDE),
    Step("alive", come_alive, needless=_is_warm, logged=Logged.BESIDE),
    Step("init", bind_runtime, needless=_is_warm, logged=Logged.BESIDE),
    Step("settings", push_settings, logged=Logged.BESIDE),
    Step(
        "providers", push_git_providers, needless=lambda start: not made(start.bundle).providers, logged=Logged.BESIDE
    ),
    Step("secrets", push_secrets, needless=lambda start: not made(start.bundle).secrets, logged=Logged.BESIDE),
    Step("converse", create_nested_conversation, logged=Logged.BESIDE),
    # The record says what an entry would; the listener that it opens is closed by whatever undoes "create" or "claim".
    Step("publish", publish_route, logged=Logged.NOT),
)
STAGES = tuple(step.name for step in STEPS)


#: What removes a runtime, whatever made it, and nothing else: for a stop, a deletion and a death.
CREATE = replace(STEPS[1], undo=destroy_runtime)
