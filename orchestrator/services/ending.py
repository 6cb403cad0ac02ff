"""The end of a runtime, whoever wants it: what its log has not told yet is read, then all that there is of it goes."""

import anyio
import structlog

from orchestrator.domain.conversation import Conversation
from orchestrator.services import saga
from orchestrator.services.events import NOT_PULLED, EventLog
from orchestrator.services.provisioning import CREATE
from orchestrator.services.start import Provisioning, runtime_name
from orchestrator.services.tending import problem_of
from orchestrator.services.warm_start import ALL_STEPS
from orchestrator.state.base import SagaLog

log = structlog.get_logger(__name__)


async def last_pull(events: EventLog, conversation: Conversation, *, seconds: float) -> None:
    """Read the runtime's log to its end, for so long at most. What could not be read is said in the log alone: no
    runtime puts its own end off."""
    try:
        with anyio.fail_after(seconds):
            await events.pull(conversation)
    except (*NOT_PULLED, TimeoutError) as exc:
        log.warning("events.last_pull_failed", conversation=conversation.id, problem=problem_of(exc))


async def remove_runtime(start: Provisioning, log_of_steps: SagaLog) -> bool:
    """Whatever the saga's log names, and the runtime of the record. False while something is stuck."""
    start.house.withdraw(start.conversation)
    if not await saga.unwind(ALL_STEPS, start, lease=start.lease, saga=log_of_steps):
        return False
    name = runtime_name(start.conversation, start.generation)
    return await saga.undo(CREATE, start, name, lease=start.lease, saga=log_of_steps)
