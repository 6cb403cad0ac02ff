"""The end of a runtime, whoever wants it: what its log has not told yet is read, then all that there is of it goes."""

from dataclasses import replace

import anyio
import structlog

from orchestrator.domain.conversation import Conversation, Why, last_lines
from orchestrator.domain.errors import NestorError
from orchestrator.services import saga
from orchestrator.services.discretion import discreet
from orchestrator.services.events import NOT_PULLED, EventLog
from orchestrator.services.provisioning import CREATE
from orchestrator.services.start import Provisioning, Surroundings, made, runtime_name
from orchestrator.services.tending import problem_of
from orchestrator.services.warm_start import ALL_STEPS
from orchestrator.state.base import SagaLog

log = structlog.get_logger(__name__)
_LAST_WORDS_SECONDS = 5.0


async def last_pull(events: EventLog, conversation: Conversation, *, seconds: float) -> None:
    """Read the runtime's log to its end, for so long at most. What could not be read is said in the log alone: no
    runtime puts its own end off."""
    try:
        with anyio.fail_after(seconds):
            await events.pull(conversation)
    except (*NOT_PULLED, TimeoutError) as exc:
        log.warning("events.last_pull_failed", conversation=conversation.id, problem=problem_of(exc))


async def with_last_words(house: Surroundings, conversation: Conversation, why: Why) -> Why:
    """`why` with the last lines that the runtime printed, without what it was told; without any where they cannot be
    had soon: no runtime puts its own end off."""
    with anyio.move_on_after(_LAST_WORDS_SECONDS):
        try:
            handle = await house.driver.find(runtime_name(conversation, made(conversation.runtime).generation))
            tail = () if handle is None else tuple(await house.driver.logs(handle))
            told = await discreet(replace(why, log_tail=tail), conversation, house.effective, house.keys)
            return replace(told, log_tail=last_lines(told))
        except NestorError as exc:
            log.warning("runtime.last_words_lost", conversation=conversation.id, problem=exc.message)
    return why


async def remove_runtime(start: Provisioning, log_of_steps: SagaLog) -> bool:
    """Whatever the saga's log names, and the runtime of the record. False while something is stuck."""
    start.house.withdraw(start.conversation)
    if not await saga.unwind(ALL_STEPS, start, lease=start.lease, saga=log_of_steps):
        return False
    name = runtime_name(start.conversation, start.generation)
    return await saga.undo(CREATE, start, name, lease=start.lease, saga=log_of_steps)
