"""Wishes that come while a worker acts on an earlier one: each comes true, and its operation tells its own end."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.replica import Ground, Policy, Replica

from orchestrator.app.routing import Routes
from orchestrator.domain.conversation import Conversation, Phase, Reason
from orchestrator.domain.errors import Conflict
from orchestrator.domain.ids import new_uuid
from orchestrator.domain.operation import Operation, OperationState
from orchestrator.domain.restarts import RestartPolicy, Restarts
from orchestrator.domain.retention import Span, Spans
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.state.base import Lease

pytestmark = pytest.mark.anyio
SOON = 0.002
RESTARTS = Policy(restarts=Restarts(RestartPolicy.ON_FAILURE, backoff_seconds=SOON))
PAUSES = Policy(Spans(Span(SOON)))
STOPS_PAUSED = Policy(Spans(Span(0), stop_paused_seconds=Span(SOON)))
EXPIRES = Policy(Spans(Span(0), max_life_seconds=Span(SOON)))


@pytest.fixture
async def ground(engine: FakeEngine, tmp_path: Path) -> Ground:
    return Ground(engine, tmp_path)


def meanwhile(ground: Ground, phase: Phase, wish: Callable[[], Awaitable[object]], *, before: bool = False) -> None:
    """Let `wish` be made once, when `phase` is stored, or just before it is."""
    store, left = ground.store.conversations, [wish]
    saved = store.save

    async def save(lease: Lease, conversation: Conversation, *, expected_version: int) -> Conversation:
        if before and conversation.phase is phase and left:
            await left.pop()()
        after = await saved(lease, conversation, expected_version=expected_version)
        if conversation.phase is phase and left:
            await left.pop()()
        return after

    store.save = save  # type: ignore[method-assign]


def at(*phases: Phase) -> Callable[[Conversation | None], bool]:
    return lambda stored: stored is not None and stored.phase in phases


async def stored(ground: Ground, of: Conversation) -> Conversation:
    found = await ground.store.conversations.get(of.tenant, of.id)
    assert found is not None
    return found


async def operation(ground: Ground, of: Conversation) -> Operation:
    found = await stored(ground, of)
    assert found.operation is not None
    known = await ground.store.operations.get(of.tenant, found.operation)
    assert known is not None
    return known


@pytest.mark.parametrize(("verb", "ends"), [("stop", Phase.STOPPED), ("delete", Phase.DELETING)])
async def test_a_start_that_succeeds_meanwhile_does_not_end_what_came_after_it(
    ground: Ground, verb: str, ends: Phase
) -> None:
    replica = Replica(ground)
    conversation = await replica.created(new_uuid())
    meanwhile(
        ground, Phase.CONFIGURING, lambda: getattr(replica.service, verb)(conversation.tenant, None, conversation.id)
    )
    await replica.act(conversation)
    assert (await stored(ground, conversation)).phase is Phase.READY
    told = await operation(ground, conversation)
    assert (told.kind, told.state) == (verb, OperationState.RUNNING), "nothing of it is done yet"
    await replica.settle(conversation, at(ends))
    assert (await operation(ground, conversation)).state is OperationState.SUCCEEDED
    assert not ground.engine.runtimes


@pytest.mark.parametrize(("verb", "ends"), [("stop", Phase.FAILED), ("delete", Phase.DELETING)])
async def test_a_start_that_fails_meanwhile_does_not_fail_what_came_after_it(
    ground: Ground, verb: str, ends: Phase
) -> None:
    replica = Replica(ground)
    conversation = await replica.created(new_uuid())
    ground.engine.script.fail("POST", "/api/settings", 422, times=None)
    meanwhile(
        ground, Phase.CONFIGURING, lambda: getattr(replica.service, verb)(conversation.tenant, None, conversation.id)
    )
    await replica.settle(conversation, at(ends))
    await replica.act(conversation)
    told = await operation(ground, conversation)
    assert (told.kind, told.state) == (verb, OperationState.SUCCEEDED), "nothing runs, as was asked for"


async def test_one_that_dies_as_it_is_paused_fails_and_can_be_resumed(ground: Ground, engine: FakeEngine) -> None:
    replica = Replica(ground, None, RESTARTS)
    conversation = await replica.created(new_uuid())
    await replica.settle(conversation, at(Phase.READY))
    (name,) = engine.runtimes
    engine.crash(name)
    pausing = lambda: replica.service.pause(conversation.tenant, None, conversation.id)  # noqa: E731
    meanwhile(ground, Phase.PENDING, pausing, before=True)
    await replica.settle(conversation, at(Phase.FAILED))
    found, told = await stored(ground, conversation), await operation(ground, conversation)
    assert (found.why.reason, found.why.message) == (Reason.RUNTIME_LOST, "the runtime ended (exit status -9)")
    assert [failure.restarted for failure in found.failures] == [False]
    assert (told.kind, told.state, told.failure and told.failure.reason) == (
        "pause",
        OperationState.FAILED,
        Reason.RUNTIME_LOST,
    )
    assert not engine.runtimes
    await replica.service.resume(conversation.tenant, None, conversation.id)
    await replica.settle(conversation, at(Phase.READY))
    assert not engine.doubles


async def paused_by_policy(ground: Ground) -> Conversation:
    replica = Replica(ground, None, PAUSES)
    conversation = await replica.created(new_uuid())
    await replica.settle(conversation, at(Phase.PAUSED))
    return conversation


async def test_a_message_that_comes_as_policy_stops_it_wakes_it(ground: Ground) -> None:
    calm, hasty = Replica(ground), Replica(ground, None, STOPS_PAUSED)
    conversation, inbox = await paused_by_policy(ground), ground.store.inbox
    send = lambda: inbox.put(  # noqa: E731
        conversation.tenant, conversation.id, client_id="m", content='"hello"', limit=9
    )
    meanwhile(ground, Phase.STOPPING, send)
    await hasty.settle(conversation, at(Phase.STOPPED))
    await calm.settle(conversation, at(Phase.READY))
    assert not await inbox.waiting(conversation.tenant, conversation.id, limit=1)


async def test_a_request_that_comes_as_policy_stops_it_waits_for_it(ground: Ground) -> None:
    replica = Replica(ground, None, STOPS_PAUSED)
    conversation, found = await paused_by_policy(ground), []
    routes = Routes(ground.store.conversations, replica.house.keys)

    async def ask() -> None:
        runtime = (await stored(ground, conversation)).runtime
        assert runtime is not None
        found.append(await routes.load(runtime.id))

    meanwhile(ground, Phase.STOPPING, ask)
    await replica.settle(conversation, at(Phase.STOPPED))
    assert found[0] is not None
    assert found[0].session_key_hash, "who has its key may wait for it, and wakes it"


async def test_a_start_of_one_that_the_clock_is_stopping_is_told_to_wait(ground: Ground) -> None:
    """It would end where the clock wanted it, and its caller would wait for a start that nobody makes."""
    replica, refused = Replica(ground, None, EXPIRES), []
    conversation = await replica.created(new_uuid())

    async def start() -> None:
        with pytest.raises(Conflict, match="stopping") as raised:
            await replica.service.start(conversation.tenant, None, conversation.id)
        refused.append(raised.value.hint)

    meanwhile(ground, Phase.STOPPING, start)
    await replica.settle(conversation, at(Phase.STOPPED))
    assert refused == ["wait until it is stopped, then start it"]
