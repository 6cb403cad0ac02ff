"""One conversation from beginning to end: start, watch, ask, wait, prove. `run.py` plays three of these at once.

It talks to the orchestrator through `native.py` and `watcher.py` alone. What does not happen becomes a miss of the
outcome, so that one conversation's trouble does not hide what became of the others.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio

from orchestrator.demo import proof
from orchestrator.demo.display import Display
from orchestrator.demo.event_lines import event_line, one_line
from orchestrator.demo.git_server import GitServer
from orchestrator.demo.native import Conversation, Event, Inner, NativeApi, Runtime
from orchestrator.demo.options import DemoFailed
from orchestrator.demo.outcome import Outcome, cost_of
from orchestrator.demo.story import Customer, prose, script
from orchestrator.demo.watcher import Watcher
from orchestrator.domain.secrets import SecretText

_POLL_SECONDS = 0.2
_START_SECONDS = 240
_DELETE_SECONDS = 60
_SETTLE_SECONDS = 15
_ENDED = frozenset({"finished", "error", "stuck", "paused", "waiting_for_confirmation"})


@dataclass(frozen=True)
class Guest:
    """A customer with what was made for it: its user's key and the values it stored."""

    customer: Customer
    tenant: str  #: its id
    api: NativeApi
    secret: SecretText
    token: SecretText


@dataclass(frozen=True)
class Surroundings:
    """What all conversations of a run share."""

    git: GitServer
    display: Display
    scripted: bool
    run_seconds: float
    through_proxy: bool


class Act:
    """One conversation of `guest`; `stranger` is a caller of another tenant."""

    def __init__(self, outcome: Outcome, *, guest: Guest, stranger: NativeApi, around: Surroundings) -> None:
        self.outcome = outcome
        self._guest = guest
        self._api = guest.api
        self._stranger = stranger
        self._around = around
        self._shown = ""

    async def play(self) -> None:
        """Play it to the end. Whatever goes wrong is in `outcome.misses`; only cancellation comes out."""
        try:
            conversation = await self._start()
            if conversation.runtime is None:
                raise DemoFailed("the conversation is ready but has no runtime")
            await self._work(conversation.runtime)
        except DemoFailed as exc:
            self.outcome.misses.append(str(exc))
        except TimeoutError as exc:
            self.outcome.misses.append(str(exc) or f"nothing moved any more after: {self._shown or 'the beginning'}")
        self._stage("done" if not self.outcome.misses else one_line(f"failed: {self.outcome.misses[0]}"))

    async def remove(self) -> None:
        """Delete the conversation and wait until it is gone; idempotent."""
        try:
            with anyio.fail_after(_DELETE_SECONDS):
                await self._delete()
        except TimeoutError:
            self.outcome.misses.append(f"the conversation was not deleted in {_DELETE_SECONDS} s")
        except DemoFailed as exc:
            self.outcome.misses.append(str(exc))

    async def _delete(self) -> None:
        while True:
            if await self._api.delete_conversation(self.outcome.conversation):
                return
            await anyio.sleep(_POLL_SECONDS)

    async def _start(self) -> Conversation:
        """Create it and follow the stages until it is ready; raises DemoFailed with the reason when it is not."""
        self._stage("asked for")
        body = {"id": self.outcome.conversation, "labels": {"demo": self.outcome.task.name}}
        created = await self._api.create_conversation(body)
        with anyio.fail_after(_START_SECONDS):
            if created.operation:
                await self._follow(created.operation)
            found = await self._started(created.id)
        if found.status != "running":
            raise DemoFailed(f"the conversation is {found.phase}, {found.why}")
        return found

    async def _started(self, conversation: str) -> Conversation:
        while True:
            found = await self._api.conversation(conversation)
            if found.status != "starting":
                return found
            await anyio.sleep(_POLL_SECONDS)

    async def _follow(self, operation: str) -> None:
        while True:
            found = await self._api.operation(operation)
            self.outcome.stages = found.stages
            if found.state != "running":
                return
            if found.current:
                self._stage(f"starting: {found.current.name}")
            await anyio.sleep(_POLL_SECONDS)

    async def _work(self, runtime: Runtime) -> None:
        self.outcome.runtime = runtime.id[:8]
        inner = await self._api.inner(runtime, self.outcome.conversation)
        guarded = {"the secret": self._guest.secret, "the git token": self._guest.token}
        watcher = Watcher(runtime, self.outcome.conversation, guarded=guarded, on_event=self._show)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, watcher)
                await self._converse(runtime, watcher, inner)
                tasks.cancel_scope.cancel()
        except* DemoFailed as group:
            raise DemoFailed("; ".join(str(exc) for exc in _leaves(group))) from None
        except* TimeoutError as group:
            raise TimeoutError("; ".join(filter(None, (str(exc) for exc in _leaves(group))))) from None

    async def _watch(self, watcher: Watcher) -> None:
        await watcher.follow(through_proxy=self._around.through_proxy)

    async def _converse(self, runtime: Runtime, watcher: Watcher, inner: Inner) -> None:
        """Ask, wait until the agent is done, and hold the result to what was asked."""
        with anyio.fail_after(_SETTLE_SECONDS):
            await watcher.connected.wait()
        self._stage("the agent works")
        asked = self._message(inner.workspace.get("working_dir") or "/workspace/project")
        await self._api.send_message(self.outcome.conversation, asked, client_id=f"demo-{self.outcome.short}")
        ended = await self._wait_for_end(runtime)
        self.outcome.cost = cost_of(ended.stats)
        self._stage("checking")
        events = await self._settled_log()
        if ended.execution_status != "finished":
            self.outcome.misses.append(f"the run ended as {ended.execution_status}{proof.complaint(events)}")
        await self._prove(watcher, events)

    def _message(self, folder: str) -> str:
        task, conversation = self.outcome.task, self.outcome.conversation
        clone_url = self._around.git.url(self._guest.customer.repository)
        asked = prose(task, clone_url=clone_url, conversation=conversation)
        if self._around.scripted:
            asked += "\n\n" + script(task, clone_url=clone_url, conversation=conversation, folder=folder)
        return asked

    async def _wait_for_end(self, runtime: Runtime) -> Inner:
        began = time.monotonic()
        while time.monotonic() - began < self._around.run_seconds:
            inner = await self._api.inner(runtime, self.outcome.conversation)
            if inner.execution_status in _ENDED:
                return inner
            await anyio.sleep(_POLL_SECONDS)
        raise TimeoutError(f"the agent was not done after {self._around.run_seconds:.0f} s")

    async def _prove(self, watcher: Watcher, events: Sequence[Event]) -> None:
        outcome, git, customer = self.outcome, self._around.git, self._guest.customer
        outcome.commit, misses = await proof.pushed(
            git, customer.repository, outcome.conversation, secret=self._guest.secret
        )
        outcome.misses += misses
        if outcome.commit:
            self._around.display.event(outcome, f"pushed {outcome.commit.sha[:8]} {one_line(outcome.commit.subject)}")
            outcome.misses += await proof.mended(git, customer.repository, outcome.conversation, task=outcome.task)
        if not outcome.cost.tokens_in or not outcome.cost.tokens_out:
            outcome.misses.append("no tokens of the model were counted")
        outcome.misses += proof.tested(events) + proof.numbered(events)
        actions = [str(entry.event["id"]) for entry in events if entry.event.get("kind") == "ActionEvent"]
        if not actions or not await watcher.saw(actions, within=_SETTLE_SECONDS):
            outcome.misses.append("not every action of the agent came over the event socket")
        outcome.live_events = len(watcher.seen)
        outcome.misses += [f"{name} was in an event" for name in sorted(watcher.leaks)]
        outcome.stranger_sees, misses = await proof.hidden(self._stranger, outcome.conversation)
        outcome.misses += misses

    async def _settled_log(self) -> list[Event]:
        """The event log once the end of the run is in it; it may be some moments behind the runtime."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            events = await self._api.events(self.outcome.conversation)
            if any(_is_end(entry.event) for entry in events[-5:]) or time.monotonic() > deadline:
                return events
            await anyio.sleep(_POLL_SECONDS)

    async def _show(self, event: Mapping[str, Any]) -> None:
        if line := event_line(event):
            self._around.display.event(self.outcome, line)

    def _stage(self, text: str) -> None:
        if text != self._shown:
            self._shown = text
            self._around.display.stage(self.outcome, text)


def _is_end(event: Mapping[str, Any]) -> bool:
    return event.get("key") == "execution_status" and event.get("value") in _ENDED


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for exc in group.exceptions:
        found += _leaves(exc) if isinstance(exc, BaseExceptionGroup) else [exc]
    return found
