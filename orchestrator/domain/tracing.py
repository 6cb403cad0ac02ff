"""The trace that a request belongs to (W3C Trace Context), passed on with each call that is made for it.

Nestor records no spans of its own, so what came is passed on as it came: what a runtime or a receiver of webhooks
records hangs below the caller's own span. Where none came the request's id is the trace's. No I/O; found by context,
like `state/audit.py`'s telling. An operation's trace stands in the record, since any replica may do its work.
"""

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from orchestrator.domain.conversation import Conversation, Desired, Phase

_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_PARENT_LENGTH = 55
_STATE = re.compile(r"[ -~\t]{1,512}")
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
_NOT_SAMPLED = "00"


@dataclass(frozen=True)
class Trace:
    """`parent` is a `traceparent`, `state` the `tracestate` that came with it, empty for none."""

    parent: str
    state: str = ""

    @property
    def id(self) -> str:
        return self.parent[3:35]

    @property
    def headers(self) -> Mapping[str, str]:
        return {"traceparent": self.parent, **({"tracestate": self.state} if self.state else {})}

    @property
    def text(self) -> str:
        """As records keep it."""
        return f"{self.parent}\n{self.state}" if self.state else self.parent


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def read(parents: Sequence[str], states: Sequence[str] = ()) -> Trace | None:
    """What the headers of these names say; None where there is none, several, or one that is not of its form. Of a
    version to come what follows its first four fields is left out, as the recommendation has it."""
    if len(parents) != 1:
        return None
    sent = parents[0]
    parent, more = sent[:_PARENT_LENGTH], sent[_PARENT_LENGTH:]
    if not _PARENT.fullmatch(parent) or (more and (parent[:2] == "00" or not more.startswith("-"))):
        return None
    state = ",".join(states)
    return Trace("00" + parent[2:], state if _STATE.fullmatch(state) else "")


def begun(request_id: str = "") -> Trace:
    """A trace of our own, by the id of a request where that can be one."""
    id = request_id if _TRACE_ID.fullmatch(request_id) else secrets.token_hex(16)
    return Trace(f"00-{id}-{secrets.token_hex(8)}-{_NOT_SAMPLED}")


def kept(text: str) -> Trace | None:
    """The inverse of `Trace.text`; None for anything else."""
    parent, _, state = text.partition("\n")
    return read([parent], [state] if state else [])


@contextmanager
def tracing(trace: Trace | None) -> Iterator[None]:
    """What is called meanwhile, by this task and those that it begins, belongs to it."""
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Trace | None:
    return _current.get()


def text() -> str:
    """Of the present trace, as records keep it; empty where there is none."""
    trace = _current.get()
    return "" if trace is None else trace.text


def headers() -> Mapping[str, str]:
    """For a call that is made now: of the present trace, or of a new one."""
    return (_current.get() or begun()).headers


def of_operation(conversation: Conversation) -> Trace | None:
    """Of what a caller asked for last, while it is not done; None where nobody waits for anything."""
    if conversation.restart_at is not None or not conversation.trace:
        return None
    rests = conversation.phase is Phase.READY and conversation.desired is Desired.RUNNING
    return None if rests else kept(conversation.trace)
