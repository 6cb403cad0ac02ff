"""The step of a start that may make the next five needless: a spare of the warm pool is claimed and told its keys.

It is the first step where there is a pool, and never fails a start: for a miss, and for a spare that does not take its
keys, the start goes on cold in the same saga. Whose the spare is, is stored and in the journal before it is told
anything: meanwhile it is asked for its proof, and what it will be configured with is read. Its storage becomes the
conversation's.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import anyio
import structlog

from orchestrator.domain.conversation import Phase, RuntimeRecord, advance
from orchestrator.domain.errors import RuntimeUnreachable
from orchestrator.drivers.errors import ClaimTaken
from orchestrator.nested.refusals import Impostor, NotDormant, Refused
from orchestrator.services.beside import beside
from orchestrator.services.configuring import read_ahead
from orchestrator.services.making import init_body
from orchestrator.services.pool import Taken, WarmPool
from orchestrator.services.provisioning import STEPS
from orchestrator.services.saga import Step
from orchestrator.services.start import Provisioning, Surroundings, advance_to, client_of, made
from orchestrator.telemetry import metrics

log = structlog.get_logger(__name__)
_INIT_SECONDS = 10.0
HIT = "hit: a spare of the warm pool"
MISS = "miss: no spare was ready"
NOT_TAKEN = "miss: the spare did not take its keys"
HAS_WORKSPACE = "not asked for: there is a workspace already"
OFF = "not asked for: the warm pool is off"


async def claim_spare(start: Provisioning) -> None:
    """A spare for a conversation without a workspace; otherwise the steps that follow make a runtime."""
    pool, runtime = start.house.pool, made(start.conversation.runtime)
    if pool is None or not pool.is_on:
        start.told = OFF
    elif start.conversation.was_ready or runtime.volume is not None:
        start.told = HAS_WORKSPACE
    else:
        request = start.conversation.request
        pin = start.conversation.image
        taken = await pool.claim(start.lease, pin.id if pin is not None else request.image, request.size)
        start.told = MISS if taken is None else await _bound(start, pool, taken)
        metrics.SPARES_ASKED.labels("hit" if start.warm else "miss" if taken is None else "not_taken").inc()
        log.info("pool.asked", conversation=start.conversation.id, hit=start.warm)


async def _bound(start: Provisioning, pool: WarmPool, taken: Taken) -> str:
    """Write down whose it is, and then tell it. Answers what is told of that."""
    runtime, start.keys = await start.house.keys.renew(start.conversation, start.generation)
    bound = replace(runtime, spare=taken.name, volume=taken.volume)
    start.handle, start.endpoint, start.init_key = taken.handle, taken.endpoint, taken.init_key
    problem = await _told(start, bound, await init_body(start, start.keys))
    if problem is not None:
        log.warning("spare.not_bound", name=taken.name, problem=type(problem).__name__)
        if isinstance(problem, NotDormant):
            await pool.set_aside(taken.name)
        else:  # it may have been told: nobody else gets it
            await pool.remove(taken.name, fence=start.lease.fence)
        start.handle = start.endpoint = start.init_key = None
        anew = advance_to(start, Phase.PENDING)
        cold = advance(anew, Phase.PROVISIONING, why=anew.why, now=start.house.clock.now())
        await start.store(replace(cold, runtime=replace(bound, spare="", volume=None)))
        return NOT_TAKEN
    start.warm, start.init_key = True, None
    return HIT


async def _told(start: Provisioning, bound: RuntimeRecord, body: Mapping[str, Any]) -> Exception | None:
    """Store whose it is, and tell it when that is done; why it does not know it, if so. Raises what storing raises, and
    then it was told nothing."""
    stored = anyio.Event()
    told: list[Exception | None] = []

    async def tell() -> None:
        told.append(await _init(start, body, stored))

    async def read_meanwhile() -> None:
        await stored.wait()  # while the spare takes in what it is told there is time
        await read_ahead(start)

    async def store() -> None:
        await start.store(replace(advance_to(start, Phase.CONFIGURING), runtime=bound))
        await start.house.archived(start.conversation.tenant)
        stored.set()

    await beside(store, tell, read_meanwhile)
    return told[0]


async def _init(start: Provisioning, body: Mapping[str, Any], stored: anyio.Event) -> Exception | None:
    try:
        with anyio.fail_after(_INIT_SECONDS) as patience:

            async def permitted() -> None:
                patience.deadline = float("inf")  # the journal's time is not the spare's
                await stored.wait()
                patience.deadline = anyio.current_time() + _INIT_SECONDS

            async with client_of(start) as client:
                await client.init(made(start.init_key), body, permitted=permitted)
    except (RuntimeUnreachable, Refused, Impostor, TimeoutError) as exc:
        return exc
    return None


async def give_spare_up(start: Provisioning, _note: str) -> None:
    """Remove what was claimed for this start: by the record, and by the pool where a crash came before the record. The
    storage goes with it: a conversation that was never ready has no work to keep."""
    pool, runtime = start.house.pool, made(start.conversation.runtime)
    if pool is None or start.conversation.was_ready:
        return
    start.house.withdraw(start.conversation)
    for name in {runtime.spare, await pool.held_by(start.lease)} - {""}:
        await pool.remove(name, fence=start.lease.fence)
    if runtime.volume is not None:
        with suppress(ClaimTaken):  # where a driver has been told that it is this conversation's
            await start.house.driver.remove_volume(start.labels, fence=start.lease.fence)
        await start.store(replace(start.conversation, runtime=replace(runtime, spare="", volume=None)))


CLAIM: Step[Provisioning] = Step("claim", claim_spare, undo=give_spare_up, tell=lambda start: start.told)
#: What may have run, whatever this replica would do now.
ALL_STEPS: Sequence[Step[Provisioning]] = (CLAIM, *STEPS)


def steps_of(house: Surroundings) -> Sequence[Step[Provisioning]]:
    """The steps of a start."""
    return STEPS if house.pool is None or not house.pool.is_on else ALL_STEPS


def stages_of(house: Surroundings) -> Sequence[str]:
    """Their names."""
    return tuple(step.name for step in steps_of(house))
