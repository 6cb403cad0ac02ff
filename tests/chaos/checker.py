"""Judges a history: the API's own answers, and in the end the engine's, against the five invariants of "nothing lost".

N1 what was answered 2xx is there; N2 every event comes out once, in order, and every message is one; N3 all that was
asked for comes to an end; N4 the engine runs what the records say; N5 nothing is handed to the wrong generation or
tenant. Pure: each function answers sentences, one a violation. What may have happened or not is held against nobody.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos.history import Call, History, Outcome
from orchestrator.domain.ids import ConversationId, message_event_id

#: What a caller wants after each call.
WANTS = {
    "create": "running",
    "start": "running",
    "resume": "running",
    "pause": "paused",
    "stop": "stopped",
    "undelete": "stopped",
    "delete": "deleted",
}
RUNS = ("ready", "paused")
SPARE = "nestor-spare-"
RESTS = (*RUNS, "stopped", "failed")
Events = Sequence[tuple[int, str]]  #: (sequence, id)


@dataclass
class End:
    """What there was when all had settled."""

    records: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)  #: None: 404 or 410
    listed: Mapping[str, Sequence[str]] = field(default_factory=dict)  #: by tenant
    receipts: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    outer: Mapping[str, Events] = field(default_factory=dict)  #: what the API says happened
    streamed: Mapping[str, Events] = field(default_factory=dict)  #: what one subscriber of each was told, in that order
    inner: Mapping[str, Sequence[str]] = field(default_factory=dict)  #: what the runtime wrote down: ids
    operations: Mapping[str, str] = field(default_factory=dict)  #: their states
    census: Mapping[str, Any] = field(default_factory=dict)
    handed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  #: by runtime
    secrets: Mapping[str, str] = field(default_factory=dict)  #: the secret value of each tenant


def violations(history: History, end: End) -> list[str]:
    """All of them; none is what a good history has."""
    return [
        f"{name}: {sentence}"
        for name, found in (
            ("N1", visible(history, end)),
            ("N2", in_order(history, end)),
            ("N3", ended(end)),
            ("N4", owned(end)),
            ("N5", apart(history, end)),
        )
        for sentence in found
    ]


# -- N1


def visible(history: History, end: End) -> Iterator[str]:
    """Accepted things are there, at once and in the end, and a repeat means the same thing."""
    for conversation, calls in _lives(history).items():
        yield from _as_wanted(conversation, calls, end)
        yield from _read_as_written(history, conversation, calls)
    for call in history.calls("create", "message"):
        name = "id" if call.kind == "create" else "sequence"
        meant = {str(answer.get(name)) for answer in call.answers}
        if len(meant) > 1:
            yield f"one Idempotency-Key ({call.tries[0].key}) led to {sorted(meant)}"
    for call in history.calls("message"):
        conversation = call.tries[0].conversation
        if call.outcome is not Outcome.DONE or end.records.get(conversation) is None:
            continue
        wanted = (call.answers[0].get("id"), call.answers[0].get("sequence"))
        receipts = [(one.get("id"), one.get("sequence")) for one in end.receipts.get(conversation, ())]
        if receipts.count(wanted) != 1:
            yield f"message {wanted} of {conversation} was accepted and is there {receipts.count(wanted)} times"


def _lives(history: History) -> Mapping[str, list[Call]]:
    """What was asked for each conversation, in order: each has one client that asks for such things."""
    found: dict[str, list[Call]] = defaultdict(list)
    for call in history.calls(*WANTS):
        found[call.tries[0].conversation].append(call)
    return found


def _as_wanted(conversation: str, calls: Sequence[Call], end: End) -> Iterator[str]:
    counted = [call for call in calls if call.outcome is not Outcome.REFUSED]
    if not counted or counted[-1].outcome is Outcome.UNKNOWN:
        return
    last, record = counted[-1], end.records.get(conversation)
    wanted, tenant = WANTS[last.kind], last.tries[0].tenant
    if (record is None) != (wanted == "deleted"):
        yield f"{conversation}: {last.kind} was accepted, and it is {'not there' if record is None else 'still there'}"
        return
    if (conversation in end.listed.get(tenant, ())) == (record is None):
        yield f"{conversation}: {last.kind} was accepted, and the list says otherwise"
    if record is None or record.get("desired") == wanted:
        return
    if wanted == "stopped" and record.get("phase") == "failed":
        return  # there was nothing to stop
    found = f"{record.get('phase')}, to be {record.get('desired')}"
    yield f"{conversation}: {last.kind} was accepted, and it is {found}"


def _read_as_written(history: History, conversation: str, calls: Sequence[Call]) -> Iterator[str]:
    """A read that began after a write was answered sees it, where nothing else was on its way."""
    for read in history.invocations:
        about = read.kind == "list" and read.tenant == calls[0].tries[0].tenant
        if not about and (read.kind, read.conversation) != ("get", conversation):
            continue
        if read.ended is None or (read.outcome is not Outcome.DONE and read.status not in (404, 410)):
            continue
        there = _there(calls, read.began, read.ended)
        found = read.status not in (404, 410) and (read.kind == "get" or conversation in read.answer.get("ids", ()))
        if there is not None and there != found:
            yield f"{conversation}: {read.kind} at {read.began:.3f} said {found}, and by then that was {there}"


def _there(calls: Sequence[Call], began: float, ended: float) -> bool | None:
    """Whether it had to be seen by a read of that time; None where it could go either way."""
    there: bool | None = None
    for call in (call for call in calls if call.kind in ("create", "delete", "undelete")):
        if call.began > ended or call.outcome is Outcome.REFUSED:
            continue
        over = call.outcome is Outcome.DONE and call.done_at < began
        there = (call.kind != "delete") if over else None
    return there


# -- N2


def in_order(history: History, end: End) -> Iterator[str]:
    """The log outside is the log inside, whoever read it whenever; each message is in it once, where it belongs."""
    for conversation, outer in end.outer.items():
        if [sequence for sequence, _ in outer] != list(range(1, len(outer) + 1)):
            yield f"{conversation}: the numbers of its events are not 1 to {len(outer)}"
        ids, inner = [id for _, id in outer], list(end.inner.get(conversation, ()))
        if ids != inner:
            same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(ids, inner, strict=False)))
            yield f"{conversation}: outside are {len(ids)} events and inside {len(inner)}, the same up to {same}"
        yield from _messages(history, conversation, inner)
    for read in history.of("events"):
        final = dict(end.outer.get(read.conversation, ()))
        for sequence, id in read.answer.get("events", ()):
            if final and final.get(sequence) != id:
                yield f"{read.conversation}: event {sequence} was {id} and is {final.get(sequence)}"
    for conversation, told in end.streamed.items():
        outer = end.outer.get(conversation)
        if outer is not None and list(told) != list(outer):
            same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(told, outer, strict=False)))
            found = f"{len(told)} events of {len(outer)}, right up to {same}"
            yield f"{conversation}: its subscriber was told {found}"
    yield from _grows(history)


def _messages(history: History, conversation: str, inner: Sequence[str]) -> Iterator[str]:
    count = Counter(inner)
    for id, times in count.items():
        if times > 1:
            yield f"{conversation}: event {id} is there {times} times"
    sent = [call for call in history.calls("message") if call.tries[0].conversation == conversation]
    places: list[int] = []
    for call in sent:
        if call.outcome is not Outcome.DONE:
            continue
        id = str(message_event_id(ConversationId(conversation), str(call.answers[0]["id"])))
        if id not in count:
            yield f"{conversation}: message {call.answers[0]['id']} was accepted and never reached the agent"
            continue
        places.append(inner.index(id))
    if places != sorted(places):
        yield f"{conversation}: its messages reached the agent in another order"


def _grows(history: History) -> Iterator[str]:
    """A log does not get shorter: what one reader was shown, the next one is shown as well."""
    reads: dict[str, list[tuple[float, float, int]]] = defaultdict(list)
    for read in history.of("events"):
        if read.ended is not None and "last" in read.answer:
            reads[read.conversation].append((read.began, read.ended, read.answer["last"]))
    for conversation, found in reads.items():
        for began, _, last in found:
            before = max((other for _, ended, other in found if ended < began), default=0)
            if last < before:
                yield f"{conversation}: {before} events were shown and later {last}"


# -- N3


def ended(end: End) -> Iterator[str]:
    """Nothing is on its way for ever, and what failed says why."""
    for conversation, record in end.records.items():
        if record is None:
            continue
        phase = record.get("phase")
        if phase not in RESTS:
            yield f"{conversation} is {phase} for good"
        elif phase == "failed" and not record.get("reason"):
            yield f"{conversation} failed without a reason"
        elif record.get("desired") == "running" and phase not in ("ready", "failed"):
            yield f"{conversation} is to run and is {phase}"
        elif record.get("desired") in ("paused", "stopped") and phase == "ready":
            yield f"{conversation} is to be {record['desired']} and runs"
    for operation, state in end.operations.items():
        if state not in ("succeeded", "failed"):
            yield f"operation {operation} is {state} for good"


# -- N4


def owned(end: End) -> Iterator[str]:
    """The engine runs exactly what the records say, and never ran two of one conversation."""
    wanted = {id for id, record in end.records.items() if record is not None and record.get("phase") in RUNS}
    alive = set(end.census.get("alive", ()))
    served: dict[str, list[str]] = defaultdict(list)
    for name, conversation in owners(end.records, end.census).items():
        if conversation is not None:
            served[conversation].append(name)
        elif not is_waiting(name, end.census):
            yield f"runtime {name} belongs to nobody"
    for conversation in sorted(set(served) - wanted):
        yield f"{served[conversation]} of {conversation} belongs to nobody any more"
    for conversation in sorted(wanted):
        if [name for name in served[conversation] if name in alive] != served[conversation] or not served[conversation]:
            yield f"the runtime of {conversation} does not run"
        if len(served[conversation]) > 1:
            yield f"{conversation} has the runtimes {served[conversation]}"
    for pair in end.census.get("doubles", ()):
        yield f"alive at once: {pair}"


def owners(records: Mapping[str, Mapping[str, Any] | None], census: Mapping[str, Any]) -> Mapping[str, str | None]:
    """Whose each runtime of the engine is, by its name, or for one that was a spare by what was begun in it. None:
    nobody's."""
    names = {
        f"nestor-{record['runtime']['id']}-g{record['runtime']['generation']}": conversation
        for conversation, record in records.items()
        if record is not None and record.get("runtime")
    }
    spares = {name: served[0] for name, served in census.get("serves", {}).items() if name.startswith(SPARE)}
    return {name: names.get(name) or spares.get(name) for name in census.get("runtimes", ())}


def is_waiting(name: str, census: Mapping[str, Any]) -> bool:
    """Whether that is a spare that was told nothing."""
    told = census.get("configured", {}).get(name) or census.get("serves", {}).get(name)
    return name.startswith(SPARE) and not told


# -- N5


def apart(history: History, end: End) -> Iterator[str]:
    """Keys and secrets stay where they belong, and so does everything else of a tenant."""
    yield from _tenants_apart(history)
    yield from _session_keys(history)
    owners = {one.conversation: one.tenant for one in history.of("create")}
    of_runtime = {
        str(record["runtime"]["id"]): conversation
        for conversation, record in end.records.items()
        if record is not None and record.get("runtime")
    }
    holders: dict[str, set[str]] = defaultdict(set)
    for name, handed in end.handed.items():
        runtime, _, generation = name.removeprefix("nestor-").rpartition("-g")
        for key in handed.get("keys", ()):
            holders[key].add(name)
        addressed = set(handed.get("generations", ()))
        if len(addressed) > 1 if name.startswith(SPARE) else not addressed <= {generation}:
            yield f"{name} was addressed as the generations {handed['generations']}"
        conversations = set(handed.get("conversations", ()))
        if runtime in of_runtime and not conversations <= {of_runtime[runtime]}:
            yield f"{name} is of {of_runtime[runtime]} and was told to serve {sorted(conversations)}"
        if len(conversations) > 1:
            yield f"{name} was told to serve all of {sorted(conversations)}"
        allowed = {end.secrets.get(owners[one]) for one in conversations if one in owners}
        if allowed and not set(handed.get("secrets", ())) <= allowed:
            yield f"{name} was handed another tenant's secret"
    for names in holders.values():
        if len(names) > 1:
            yield f"one inner key was handed to {sorted(names)}"


def _tenants_apart(history: History) -> Iterator[str]:
    owners = {one.conversation: one.tenant for one in history.of("create")}
    for one in history.of("list"):
        for id in one.answer.get("ids", ()):
            if owners.get(id, one.tenant) != one.tenant:
                yield f"{one.tenant} was shown {id} of {owners[id]}"
    for one in history.invocations:
        if one.kind == "peek" and one.outcome is Outcome.DONE:
            yield f"{one.tenant} could read {one.conversation}, which is another's"


def _session_keys(history: History) -> Iterator[str]:
    keys: dict[str, set[str]] = defaultdict(set)
    for one in history.of(*WANTS, "get"):
        if (key := one.answer.get("session_key")) is not None:
            keys[one.conversation].add(key)
    for conversation, found in keys.items():
        if len(found) > 1:
            yield f"{conversation} had {len(found)} session keys"
    for (one, left), (other, right) in itertools.combinations(keys.items(), 2):
        if left & right:
            yield f"{one} and {other} have the same session key"
