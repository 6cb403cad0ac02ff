"""The checker finds what is broken, and nothing in what is not: one broken history for each thing that it looks at."""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from chaos.checker import End, violations
from chaos.history import History, Invocation, Outcome
from orchestrator.domain.ids import ConversationId, message_event_id

ONE, TWO, GONE = (str(uuid.UUID(int=number, version=4)) for number in (1, 2, 3))
MESSAGES = {id: [str(message_event_id(ConversationId(id), f"m{number}")) for number in (1, 2)] for id in (ONE, TWO)}


@dataclass
class Story:
    history: History
    end: End

    def said(self, kind: str, about: str, *, tenant: str = "acme", key: str | None = None, **answer: Any) -> Invocation:
        """A try that was answered 2xx, after all that came before it."""
        return self.tried(kind, about, Outcome.DONE, 200, tenant=tenant, key=key, **answer)

    def tried(
        self,
        kind: str,
        about: str,
        outcome: Outcome,
        status: int | None,
        *,
        tenant: str = "acme",
        key: str | None,
        **answer: Any,
    ) -> Invocation:
        now = float(len(self.history.invocations))
        over = None if status is None else now + 0.5
        one = Invocation(tenant, kind, about, now, key, over, status, outcome, answer)
        self.history.invocations.append(one)
        return one


def good() -> Story:
    """Two tenants' conversations, one of which is paused, and one that was deleted."""
    story = Story(History(), End())
    for tenant, id in (("acme", ONE), ("globex", TWO), ("acme", GONE)):
        story.tried("create", id, Outcome.UNKNOWN, None, tenant=tenant, key=f"{id}-c")
        story.said("create", id, tenant=tenant, key=f"{id}-c", id=id)
        story.said("create", id, tenant=tenant, key=f"{id}-c", id=id)  # asked twice at once
        story.said("get", id, tenant=tenant, session_key=f"key of {id}")
    for tenant, id in (("acme", ONE), ("globex", TWO)):
        for number in (1, 2):
            story.said("message", id, tenant=tenant, key=f"{id}-m{number}", id=f"m{number}", sequence=number)
        story.said("events", id, tenant=tenant, events=[(1, MESSAGES[id][0]), (2, f"{id}-ok")], last=2)
    story.said("pause", TWO, tenant="globex", key="p")
    story.tried("resume", TWO, Outcome.REFUSED, 409, tenant="globex", key="r")
    story.said("delete", GONE, key="d", id=GONE)
    story.tried("get", GONE, Outcome.REFUSED, 404, key=None)
    story.tried("peek", ONE, Outcome.REFUSED, 404, tenant="globex", key=None)
    story.said("list", ONE, ids=[ONE])
    story.said("list", TWO, tenant="globex", ids=[TWO])
    logs = {id: [MESSAGES[id][0], f"{id}-ok", MESSAGES[id][1], f"{id}-ok2"] for id in (ONE, TWO)}
    story.end = End(
        records={ONE: record("r1", "ready", "running"), TWO: record("r2", "paused", "paused"), GONE: None},
        listed={"acme": [ONE], "globex": [TWO]},
        receipts={id: [{"id": f"m{n}", "sequence": n, "state": "accepted"} for n in (1, 2)] for id in (ONE, TWO)},
        outer={id: list(enumerate(log, 1)) for id, log in logs.items()},
        streamed={ONE: list(enumerate(logs[ONE], 1))},
        inner=logs,
        operations={"o1": "succeeded", "o2": "failed"},
        census={"runtimes": ["nestor-r1-g2", "nestor-r2-g2"], "alive": ["nestor-r1-g2", "nestor-r2-g2"], "doubles": []},
        handed={
            "nestor-r1-g1": handed("k0", "1", [], []),
            "nestor-r1-g2": handed("k1", "2", ["value of acme"], [ONE]),
            "nestor-r2-g2": handed("k2", "2", ["value of globex"], [TWO]),
        },
        secrets={"acme": "value of acme", "globex": "value of globex"},
    )
    return story


def record(runtime: str, phase: str, desired: str, reason: str = "requested") -> dict[str, Any]:
    return {"phase": phase, "desired": desired, "reason": reason, "runtime": {"id": runtime, "generation": 2}}


def handed(key: str, generation: str, secrets: list[str], conversations: list[str]) -> dict[str, Any]:
    return {
        "keys": [key],
        "generations": [generation],
        "secrets": secrets,
        "conversations": conversations,
        "strangers": 0,
    }


def test_a_good_history_has_no_violation() -> None:
    assert violations(good().history, good().end) == []


def test_what_may_have_happened_is_held_against_nobody() -> None:
    for phase, desired in (("stopped", "stopped"), ("ready", "running")):
        story = good()
        story.tried("stop", ONE, Outcome.UNKNOWN, None, key="s")
        story.end.records = {**story.end.records, ONE: record("r1", phase, desired)}
        if phase == "stopped":
            story.end.census = {**story.end.census, "runtimes": ["nestor-r2-g2"]}
        assert violations(story.history, story.end) == []


Break = Callable[[Story], object]


def records(**changed: Any) -> Break:
    names = {"one": ONE, "two": TWO, "gone": GONE}
    return lambda story: story.end.records.update({names[name]: value for name, value in changed.items()})  # type: ignore[attr-defined]


def moved(of: str, *order: int) -> Break:
    """The log of ONE in another order, `inner` or on both sides."""

    def change(story: Story) -> None:
        log = [story.end.inner[ONE][place] for place in order]
        story.end.inner = {**story.end.inner, ONE: log}
        if of == "both":
            story.end.outer = {**story.end.outer, ONE: list(enumerate(log, 1))}

    return change


def engine(**changed: Any) -> Break:
    return lambda story: setattr(story.end, "census", {**story.end.census, **changed})


def handing(name: str, **changed: Any) -> Break:
    return lambda story: story.end.handed.update({name: {**story.end.handed[name], **changed}})  # type: ignore[attr-defined]


def outer(*events: tuple[int, str]) -> Break:
    return lambda story: setattr(story.end, "outer", {**story.end.outer, ONE: events})


RUNTIMES = ["nestor-r1-g2", "nestor-r2-g2"]
BROKEN: dict[str, tuple[str, Break]] = {
    "an accepted conversation is not there": ("N1: .*create was accepted, and it is not there", records(one=None)),
    "a deleted one is still there": ("N1: .*still there", records(gone=record("r3", "stopped", "stopped"))),
    "an accepted pause is forgotten": ("N1: .*pause was accepted", records(two=record("r2", "ready", "running"))),
    "the list in the end misses one": (
        "N1: .*the list says otherwise",
        lambda story: setattr(story.end, "listed", {"acme": [], "globex": [TWO]}),
    ),
    "a list meanwhile misses one": ("N1: .*list at", lambda story: story.said("list", ONE, ids=[])),
    "a read after the answer does not find it": (
        "N1: .*get at",
        lambda story: story.tried("get", ONE, Outcome.REFUSED, 404, key=None),
    ),
    "a read after the deletion finds it": ("N1: .*get at", lambda story: story.said("get", GONE)),
    "a repeat made another conversation": (
        "N1: one Idempotency-Key",
        lambda story: story.said("create", ONE, key=f"{ONE}-c", id=TWO),
    ),
    "a repeat made another message": (
        "N1: one Idempotency-Key",
        lambda story: story.said("message", ONE, key=f"{ONE}-m1", id="m1", sequence=9),
    ),
    "an accepted message has no receipt": (
        "N1: message .* is there 0 times",
        lambda story: story.end.receipts.update({ONE: story.end.receipts[ONE][:1]}),  # type: ignore[attr-defined]
    ),
    "an accepted message never reached the agent": ("N2: .*never reached", moved("both", 0, 1, 3)),
    "a message reached the agent twice": ("N2: .*is there 2 times", moved("both", 0, 1, 2, 2, 3)),
    "messages reached the agent in another order": ("N2: .*another order", moved("both", 2, 1, 0, 3)),
    "the outer log misses an event": ("N2: .*outside are 3", outer((1, MESSAGES[ONE][0]), (2, f"{ONE}-ok"), (3, "x"))),
    "the outer log has a gap": ("N2: .*numbers", outer((1, MESSAGES[ONE][0]), (3, f"{ONE}-ok"))),
    "the runtime's own log lost an event": ("N2: .*inside 3", moved("inner", 0, 1, 2)),
    "a subscriber was told an event twice": (
        "N2: .*its subscriber was told 5 events of 4, right up to 2",
        lambda story: story.end.streamed[ONE].insert(2, story.end.streamed[ONE][1]),  # type: ignore[attr-defined]
    ),
    "a subscriber was not told of the end": ("N2: .*was told 3 events", lambda story: story.end.streamed[ONE].pop()),  # type: ignore[attr-defined]
    "an event changed after it was read": (
        "N2: .*was other and is",
        lambda story: story.said("events", ONE, events=[(2, "other")], last=2),
    ),
    "a log became shorter between two reads": (
        "N2: .*and later 1",
        lambda story: story.said("events", ONE, events=[(1, MESSAGES[ONE][0])], last=1),
    ),
    "a conversation starts for ever": (
        "N3: .*is configuring for good",
        records(one=record("r1", "configuring", "running")),
    ),
    "a conversation failed without a reason": (
        "N3: .*without a reason",
        records(one=record("r1", "failed", "running", "")),
    ),
    "a conversation that is to run rests": ("N3: .*is to run and is", records(one=record("r1", "stopped", "running"))),
    "a conversation that is to rest runs": ("N3: .*and runs", records(two=record("r2", "ready", "paused"))),
    "an operation has no end": ("N3: operation o1 is running", lambda story: story.end.operations.update(o1="running")),  # type: ignore[attr-defined]
    "a runtime belongs to nobody": ("N4: .*belongs to nobody", engine(runtimes=[*RUNTIMES, "nestor-r9-g1"])),
    "an earlier generation was left": ("N4: .*r1-g1 belongs to nobody", engine(runtimes=[*RUNTIMES, "nestor-r1-g1"])),
    "a runtime runs on after its conversation was stopped": (
        "N4: .*belongs to nobody any more",
        records(one=record("r1", "stopped", "running")),
    ),
    "a spare that was bound is nobody's": (
        "N4: .*spare-1 belongs to nobody",
        engine(runtimes=[*RUNTIMES, "nestor-spare-1"], configured={"nestor-spare-1": ["/api/init"]}),
    ),
    "a recorded runtime does not run": ("N4: .*does not run", engine(alive=RUNTIMES[:1])),
    "two runtimes of one were alive": ("N4: alive at once", engine(doubles=[("nestor-r1-g1", "nestor-r1-g2")])),
    "a runtime was addressed as another generation": (
        "N5: .*addressed",
        handing("nestor-r1-g2", generations=["1", "2"]),
    ),
    "two generations have one inner key": ("N5: one inner key", handing("nestor-r1-g1", keys=["k1"])),
    "a runtime has another tenant's secret": (
        "N5: .*another tenant's",
        handing("nestor-r1-g2", secrets=["value of globex"]),
    ),
    "a runtime serves another's conversation": (
        "N5: .*was told to serve",
        handing("nestor-r1-g2", conversations=[TWO]),
    ),
    "a spare serves two conversations": (
        "N5: .*was told to serve all of",
        lambda story: story.end.handed.update({"nestor-spare-1": handed("k9", "3", [], [ONE, TWO])}),  # type: ignore[attr-defined]
    ),
    "two conversations have one session key": (
        "N5: .*the same session key",
        lambda story: story.said("get", TWO, tenant="globex", session_key=f"key of {ONE}"),
    ),
    "a session key changed": ("N5: .*2 session keys", lambda story: story.said("get", ONE, session_key="new")),
    "a tenant is shown another's in a list": (
        "N5: globex was shown",
        lambda story: story.said("list", TWO, tenant="globex", ids=[TWO, ONE]),
    ),
    "a tenant can read another's": ("N5: globex could read", lambda story: story.said("peek", ONE, tenant="globex")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_it_finds(name: str) -> None:
    wanted, damage = BROKEN[name]
    story = good()
    damage(story)
    found = violations(story.history, story.end)
    assert any(re.match(wanted, one) for one in found), found
