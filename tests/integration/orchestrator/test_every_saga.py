"""Every saga of the orchestrator, by the same tests: whoever acts dies at each of its calls, or loses each reply, and
the next one brings it to the same end; what is at its end stays there; a deletion comes to its end from every phase.

`SAGAS` is all of them: the last test fails when there is a change of phase that none of them makes, and the next ones
when there is an act of the clock, or an operation, that none of them is.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.mortal import Killed, Mortal
from support.replica import Ground, Policy, Replica

from orchestrator.domain.admission import Allowance, OperatorLimits
from orchestrator.domain.admission import Policy as Queue
from orchestrator.domain.conversation import TRANSITIONS, Conversation, ForkOf, Phase
from orchestrator.domain.errors import Conflict, NotFound
from orchestrator.domain.ids import ConversationId, new_uuid
from orchestrator.domain.operation import OperationState
from orchestrator.domain.restarts import RestartPolicy, Restarts
from orchestrator.domain.retention import Act, Span, Spans
from orchestrator.drivers.errors import StartRefused
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.services import conversations

pytestmark = pytest.mark.anyio
SOON = 0.002
Doing = Callable[[Replica, Conversation], Awaitable[object]]


async def nothing(replica: Replica, conversation: Conversation) -> None:
    """The clock does it."""


def at(*phases: Phase) -> Callable[[Conversation | None], bool]:
    return lambda stored: stored is not None and stored.phase in phases


def archived(stored: Conversation | None) -> bool:
    return stored is not None and stored.archived_at is not None and not stored.was_ready


def restarted(stored: Conversation | None) -> bool:
    failures = stored.failures if stored is not None else ()
    return at(Phase.READY)(stored) and any(failure.restarted for failure in failures)


def gone(stored: Conversation | None) -> bool:
    return stored is None


async def crash(replica: Replica, conversation: Conversation) -> None:
    (name,) = [name for name, one in replica.ground.engine.runtimes.items() if conversation.id in one.serves]
    replica.ground.engine.crash(name)


async def crash_in_pause(replica: Replica, conversation: Conversation) -> None:
    await crash(replica, conversation)
    await replica.service.resume(conversation.tenant, None, conversation.id)


async def refuse(replica: Replica, conversation: Conversation) -> None:
    """Its runtime will refuse the settings, for good."""
    replica.ground.engine.script.fail("POST", "/api/settings", 422, times=None)


async def refuse_copy(replica: Replica, conversation: Conversation) -> None:
    """Its runtime will not take in what the source gives."""
    path = f"/api/conversations/{conversation.id}/copy/archive"
    replica.ground.engine.script.fail("PUT", path, 400, times=None)


async def break_image(replica: Replica, conversation: Conversation) -> None:
    """Its runtime will not be made."""
    replica.ground.engine.fail("create", StartRefused("there is no such image"), times=100)


@dataclass(frozen=True)
class Saga:
    """From a resting place (`begins`), by what somebody asks or by the clock, to where it `ends`."""

    name: str
    begins: tuple[str, ...]  #: what is asked of a new conversation before, one after the other
    wish: Doing
    ends: Callable[[Conversation | None], bool]
    runtimes: int = 0  #: alive at the end
    volumes: int = 1
    policy: Policy = field(default_factory=Policy)
    act: Act | None = None
    operation: str = ""
    fork_of: ForkOf | None = None
    crowded: bool = False  #: another conversation of the tenant has the only place
    every: int = 1  #: strike at each so manieth call: what a start does is struck at each of them once


def ask(verb: str, **more: object) -> Doing:
    async def doing(replica: Replica, conversation: Conversation) -> None:
        await getattr(replica.service, verb)(conversation.tenant, None, conversation.id, **more)

    return doing


SOURCE = ForkOf(ConversationId(new_uuid()), 7)
FULL = OperatorLimits(Allowance(max_runtimes=1), when_full=Queue.QUEUE, queue_seconds=SOON)
RESTARTS = Restarts(RestartPolicy.ON_FAILURE, backoff_seconds=SOON)
REACHED = {"start": at(Phase.READY), "pause": at(Phase.PAUSED), "stop": at(Phase.STOPPED), "delete": at(Phase.DELETING)}
SAGAS = [
    Saga("start", (), nothing, at(Phase.READY), runtimes=1, operation="start"),
    Saga("fork", (), nothing, at(Phase.READY), runtimes=1, fork_of=SOURCE, operation="start", every=3),
    Saga("fork that is refused", (), refuse_copy, at(Phase.FAILED), volumes=0, fork_of=SOURCE, every=3),
    Saga("start that is refused", (), refuse, at(Phase.FAILED), volumes=0),
    Saga("start of what cannot be made", (), break_image, at(Phase.FAILED), volumes=0),
    Saga("start without a place", (), nothing, at(Phase.FAILED), volumes=0, policy=Policy(limits=FULL), crowded=True),
    Saga("start again", ("start", "stop"), ask("start"), at(Phase.READY), runtimes=1, every=5),
    Saga("pause", ("start",), ask("pause"), at(Phase.PAUSED), runtimes=1, operation="pause"),
    Saga("resume", ("start", "pause"), ask("resume"), at(Phase.READY), runtimes=1, operation="resume"),
    Saga("stop", ("start",), ask("stop"), at(Phase.STOPPED), operation="stop"),
    Saga("stop of a paused one", ("start", "pause"), ask("stop"), at(Phase.STOPPED), operation="stop"),
    Saga("delete", ("start",), ask("delete"), at(Phase.DELETING), operation="delete"),
    Saga("undelete", ("start", "delete"), ask("undelete"), at(Phase.STOPPED), operation="undelete"),
    Saga("purge", ("start",), ask("delete", purge=True), gone, volumes=0, act=Act.PURGE, operation="delete"),
    Saga("purge later", ("start", "delete"), ask("delete", purge=True), gone, volumes=0, act=Act.PURGE),
    Saga("death", ("start",), crash, at(Phase.FAILED)),
    Saga("death in a pause", ("start", "pause"), crash, at(Phase.FAILED)),
    Saga("death, found by a resume", ("start", "pause"), crash_in_pause, at(Phase.FAILED)),
    Saga("start of one that died", ("start", "crash"), ask("start"), at(Phase.READY), runtimes=1, every=5),
    Saga(
        "restart",
        ("start",),
        crash,
        restarted,
        runtimes=1,
        policy=Policy(restarts=RESTARTS),
        act=Act.RESTART,
        operation="restart",
        every=3,
    ),
    Saga(
        "idle pause",
        ("start",),
        nothing,
        at(Phase.PAUSED),
        runtimes=1,
        policy=Policy(Spans(idle_pause_seconds=Span(SOON))),
        act=Act.PAUSE,
    ),
    Saga(
        "end of life",
        ("start",),
        nothing,
        at(Phase.STOPPED),
        policy=Policy(Spans(Span(0), max_life_seconds=Span(SOON))),
        act=Act.STOP,
    ),
    Saga(
        "archive",
        ("start", "stop"),
        nothing,
        archived,
        volumes=0,
        policy=Policy(Spans(Span(0), archive_seconds=Span(SOON))),
        act=Act.ARCHIVE,
    ),
    Saga(
        "deletion by the clock",
        ("start", "stop"),
        nothing,
        at(Phase.DELETING),
        policy=Policy(Spans(Span(0), delete_seconds=Span(SOON))),
        act=Act.DELETE,
    ),
]
every_saga = pytest.mark.parametrize("saga", SAGAS, ids=lambda saga: saga.name)


@dataclass
class Stage:
    """Where one saga is played, again and again, each time with a new conversation."""

    ground: Ground
    saga: Saga

    def replica(self, mortal: Mortal | None = None) -> Replica:
        return Replica(self.ground, mortal, self.saga.policy)

    async def begun(self) -> Conversation:
        """A conversation at the beginning of the saga, with its wish made."""
        calm, tenant = Replica(self.ground), new_uuid()
        self.ground.engine.script.clear()
        self.ground.engine.fail_no_more()
        if self.saga.crowded:
            await calm.created(tenant)
        conversation = await self.replica().created(tenant, fork_of=self.saga.fork_of)
        for verb in self.saga.begins:
            await (crash if verb == "crash" else ask(verb))(calm, conversation)
            await calm.settle(conversation, at(Phase.FAILED) if verb == "crash" else REACHED[verb])
        await self.saga.wish(calm, conversation)
        return conversation

    async def ended(self, conversation: Conversation) -> None:
        """By replicas to whom nothing happens; then everything is as the saga says, and stays so."""
        replica = self.replica()
        await replica.settle(conversation, self.saga.ends)
        while await self.is_asked(conversation):  # a start whose end was told to nobody is tried once more
            await replica.act(conversation)
        await self.reconciled()
        await self.check(conversation)
        store, engine = self.ground.store, self.ground.engine
        before, starts = await store.conversations.get(conversation.tenant, conversation.id), engine.starts
        if self.saga.name != "idle pause":  # whose clock would stop it next
            await Replica(self.ground).act(conversation)
        after = await store.conversations.get(conversation.tenant, conversation.id)
        assert (after and after.version, engine.starts) == (before and before.version, starts), (before, after)

    async def reconciled(self) -> None:
        """Two rounds later: a runtime that no record owns is not there any more."""
        reconciler = Replica(self.ground).reconciler
        for _ in range(2):
            await reconciler.tick()

    async def check(self, conversation: Conversation) -> None:
        store, engine = self.ground.store, self.ground.engine
        stored = await store.conversations.get(conversation.tenant, conversation.id)
        assert self.saga.ends(stored)
        mine = [one for one in engine.runtimes.values() if one.spec.labels.conversation == conversation.id]
        assert len(mine) == len([one for one in mine if one.alive]) == self.saga.runtimes
        labels = [one for one in engine.volumes.values() if one.tenant == conversation.tenant]
        assert len(labels) == self.saga.volumes
        assert not engine.doubles
        assert await store.saga.attempted(conversation.tenant, conversation.id) == []

    async def is_asked(self, conversation: Conversation) -> bool:
        """Whether its last operation has not ended."""
        stored = await self.ground.store.conversations.get(conversation.tenant, conversation.id)
        if stored is None or stored.operation is None:
            return False
        operation = await self.ground.store.operations.get(conversation.tenant, stored.operation)
        return operation is not None and operation.state is OperationState.RUNNING


@pytest.fixture
async def ground(engine: FakeEngine, tmp_path: Path) -> Ground:
    return Ground(engine, tmp_path)


async def struck(stage: Stage, conversation: Conversation, mortal: Mortal) -> None:
    replica = stage.replica(mortal)
    try:
        await replica.settle(conversation, stage.saga.ends)
    except Killed:
        assert mortal.dead


@every_saga
@pytest.mark.parametrize("loses", [False, True], ids=["killed", "reply lost"])
async def test_struck_at_each_of_its_calls_it_comes_to_the_same_end(ground: Ground, saga: Saga, loses: bool) -> None:
    """What was done and not noted is done twice by the next one, each undo too."""
    stage, strikes = Stage(ground, saga), 0
    for at_call in range(1, 1000, saga.every + loses):
        conversation = await stage.begun()
        mortal = Mortal(at_call, loses=loses)
        await struck(stage, conversation, mortal)
        await stage.ended(conversation)
        if not mortal.struck:
            break
        strikes += 1
    assert strikes > 2


@dataclass(frozen=True)
class Turn:
    """What comes next in a phase whose worker has just died."""

    wish: Doing
    ends: Callable[[Conversation | None], bool]
    policy: Policy = field(default_factory=Policy)


async def crash_any(replica: Replica, conversation: Conversation) -> None:
    """As `crash`, also where nothing runs yet or any more."""
    for name, one in replica.ground.engine.runtimes.items():
        if one.alive and one.spec.labels.conversation == conversation.id:
            replica.ground.engine.crash(name)


AT_REST = at(Phase.READY, Phase.PAUSED, Phase.STOPPED, Phase.FAILED, Phase.DELETING)
TURNS = {
    "nothing": Turn(nothing, AT_REST),
    "a deletion": Turn(ask("delete", purge=True), gone),
    "a stop": Turn(ask("stop"), at(Phase.STOPPED, Phase.FAILED)),
    "a death": Turn(crash_any, AT_REST),
    "a death, and a restart": Turn(crash_any, AT_REST, Policy(restarts=RESTARTS)),
    "a use": Turn(lambda replica, conversation: replica.service.wake(conversation.tenant, conversation.id), AT_REST),
}


async def used_as_it_is_paused(ground: Ground) -> None:
    """Between the change of phase and the pause itself: it goes on."""
    stage = Stage(ground, next(saga for saga in SAGAS if saga.name == "idle pause"))
    conversation, replica = await stage.begun(), stage.replica()
    ground.on_crossing = lambda: replica.activity.touch(conversation.tenant, conversation.id)
    while (Phase.PAUSING, Phase.READY) not in ground.crossed:
        await replica.act(conversation)
    ground.on_crossing = lambda: None


async def died_at_crossing(stage: Stage, number: int) -> tuple[Conversation, Phase | None]:
    """A conversation whose worker died when it had stored its `number`-th change of phase; None: it has not so many."""
    conversation, mortal, left = await stage.begun(), Mortal(1_000), [number]

    def cross() -> None:
        left[0] -= 1
        mortal.dead = left[0] == 0

    stage.ground.on_crossing = cross
    await struck(stage, conversation, mortal)
    stage.ground.on_crossing = lambda: None
    stored = await stage.ground.store.conversations.get(conversation.tenant, conversation.id)
    return conversation, stored.phase if mortal.dead and stored is not None else None


async def test_each_phase_is_left_and_the_sagas_are_all(ground: Ground) -> None:
    """In each phase in which somebody can die, each thing that can come next is brought to its end; and all the changes
    of phase that there are have happened, so that a saga that is missing from this file is noticed."""
    seen: set[tuple[str, Phase | None]] = set()
    for saga in SAGAS:
        stage, number = Stage(ground, saga), 0
        while number < 20:
            number += 1
            conversation, phase = await died_at_crossing(stage, number)
            for name in [name for name in TURNS if (name, phase) not in seen]:
                if phase is None:
                    break
                seen.add((name, phase))
                turn = TURNS[name]
                try:
                    await turn.wish(Replica(ground), conversation)
                except (Conflict, NotFound):
                    continue  # it is told that this is not possible
                await Replica(ground, None, turn.policy).settle(conversation, turn.ends)
                await stage.reconciled()
                assert not ground.engine.doubles
                if turn.ends is gone:
                    assert not any(one.tenant == conversation.tenant for one in ground.engine.volumes.values())
                conversation, _ = await died_at_crossing(stage, number)
            if phase is None:
                break
    await used_as_it_is_paused(ground)
    assert {phase for _, phase in seen if phase} >= set(Phase) - {Phase.PENDING}
    known = {(before, after) for before, afters in TRANSITIONS.items() for after in afters}
    assert known == ground.crossed


def test_each_act_of_the_clock_is_one_of_them() -> None:
    assert {saga.act for saga in SAGAS if saga.act is not None} == set(Act)


def test_each_operation_is_one_of_them() -> None:
    source = Path(conversations.__file__).parent
    words = "".join(file.read_text() for file in sorted(source.glob("*.py")))
    called = re.findall(r'_change\(\s*tenant, user, id, change, "(\w+)"|_begin\(conversation, "(\w+)"', words)
    made = re.findall(r'\bOperation\(\s*\w+,\s*[\w.]+,\s*[\w.]+,\s*"(\w+)"', words)
    resumed = re.findall(r'\b_?(?:started|resumed), "(\w+)"', words)
    kinds = {name for pair in called for name in pair if name} | set(made) | set(resumed)
    assert {saga.operation for saga in SAGAS if saga.operation} == kinds
