"""What becomes of a conversation by the clock alone: when it is paused, stopped, archived, deleted, and why.

Pure rules. Each time is chosen by the request, the user or the tenant (`limits`), else by the operator, who may cap it
as well. Seconds; 0 is never (a time) and none (a cap).
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from orchestrator.domain.conversation import Conversation, Phase, Reason


@dataclass(frozen=True)
class Span:
    """One time: what holds where nobody chose, and the longest that may be chosen."""

    default: float = 0.0
    cap: float = 0.0

    def seconds(self, asked: float | None) -> float:
        """What holds for a conversation that asks for `asked`; 0 for ever."""
        wanted = self.default if asked is None else asked
        if self.cap and (not wanted or wanted > self.cap):
            return self.cap
        return wanted


@dataclass(frozen=True)
class Times:
    """The times of one conversation, in seconds; 0 for never."""

    idle_pause: float = 0.0  #: unused for so long, it is paused
    max_life: float = 0.0  #: a runtime lives for so long, then it is stopped
    stop_paused: float = 0.0  #: paused for so long, its runtime is removed
    archive: float = 0.0  #: at rest for so long, its workspace is removed; the log stays
    delete: float = 0.0  #: at rest for so long, it is deleted


@dataclass(frozen=True)
class Spans:
    """The operator's times, by the name of the setting below `limits`."""

    idle_pause_seconds: Span = Span(1800.0)
    max_life_seconds: Span = Span()
    stop_paused_seconds: Span = Span()
    archive_seconds: Span = Span()
    delete_seconds: Span = Span()

    def times(self, limits: Any) -> Times:
        """What holds for a conversation whose merged settings have these `limits`."""
        own = limits if isinstance(limits, Mapping) else {}
        chosen = [getattr(self, field.name).seconds(_seconds(own.get(field.name))) for field in fields(self)]
        return Times(*chosen)


def times_at_rest(limits: Any) -> tuple[float | None, ...]:
    """What a layer's `limits` say about conversations at rest: where that changes, all of them have to be looked at."""
    own = limits if isinstance(limits, Mapping) else {}
    return tuple(_seconds(own.get(name)) for name in ("archive_seconds", "delete_seconds"))


def _seconds(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and value >= 0 else None


class Act(enum.StrEnum):
    """What the clock does."""

    PAUSE = "pause"
    STOP = "stop"
    ARCHIVE = "archive"
    DELETE = "delete"
    PURGE = "purge"
    RESTART = "restart"


@dataclass(frozen=True)
class Planned:
    """One thing that will be done at that moment, unless the conversation is used (a pause) or changes before."""

    act: Act
    reason: Reason
    at: datetime


def plan(conversation: Conversation, times: Times, *, unused_since: datetime | None) -> tuple[Planned, ...]:
    """What will be done to it as it stands now, the next first."""
    found: list[Planned] = []

    def after(act: Act, reason: Reason, since: datetime | None, seconds: float) -> None:
        if since is not None and seconds:
            found.append(Planned(act, reason, since + timedelta(seconds=seconds)))

    runtime, since = conversation.runtime, conversation.phase_since
    born = runtime.started_at if runtime is not None else None
    match conversation.phase:
        case Phase.READY:
            after(Act.PAUSE, Reason.IDLE, unused_since, times.idle_pause)
            after(Act.STOP, Reason.EXPIRED, born, times.max_life)
        case Phase.PAUSED:
            after(Act.STOP, conversation.why.reason, since, times.stop_paused)
            after(Act.STOP, conversation.why.reason, born, times.max_life)
        case Phase.STOPPED | Phase.FAILED:
            if conversation.archived_at is None:
                after(Act.ARCHIVE, Reason.EXPIRED, since, times.archive)
            after(Act.DELETE, Reason.EXPIRED, since, times.delete)
        case Phase.PENDING if conversation.restart_at is not None:
            found.append(Planned(Act.RESTART, conversation.why.reason, conversation.restart_at))
        case Phase.DELETING if conversation.purge_at is not None:
            found.append(Planned(Act.PURGE, Reason.REQUESTED, conversation.purge_at))
        case _:
            pass
    return tuple(sorted(found, key=lambda planned: planned.at))
