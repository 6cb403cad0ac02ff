"""Conversations at rest: which ones a use wakes, and what a start or a resume makes of each. Pure functions."""

from dataclasses import replace
from datetime import datetime

from orchestrator.domain.conversation import Conversation, Desired, Kind, Phase, cause_of, put_to_rest
from orchestrator.domain.errors import Conflict


def may_wake(conversation: Conversation) -> bool:
    """Whether using it brings it back: policy put it to rest, and nobody wants it to stay there."""
    return conversation.phase in (Phase.PAUSING, Phase.PAUSED, Phase.STOPPED) and put_to_rest(conversation)


def will_wake(conversation: Conversation) -> bool:
    """Whether using it brings it back as soon as its runtime is gone: policy is about to have put it to rest."""
    return conversation.phase is Phase.STOPPING and put_to_rest(conversation)


def at_rest(conversation: Conversation) -> bool:
    return conversation.phase in (Phase.PAUSING, Phase.PAUSED, Phase.STOPPED, Phase.FAILED)


def no_runtime(present: Conversation, words: str, *, hint: str) -> Conflict:
    """`words` after the phase it is in; of one that failed with the cause."""
    cause = {"cause": cause_of(present.why)} if present.phase is Phase.FAILED else {}
    return Conflict(f"the {present.kind} is {present.phase}{words}", hint=hint, **cause)


def can_return(conversation: Conversation, now: datetime) -> bool:
    """Whether it is deleted and can still be brought back."""
    deleted = conversation.desired is Desired.DELETED and not conversation.purging
    return deleted and conversation.purge_at is not None and conversation.purge_at > now


def archived(kind: Kind = Kind.CONVERSATION) -> Conflict:
    """Nothing goes on without the workspace: the agent's own log was in it."""
    hint = "; the events of this one can still be read" if kind is Kind.CONVERSATION else ""
    return Conflict(f"the {kind} is archived: its workspace is gone", hint=f"make a new {kind}{hint}")


def started(present: Conversation) -> Conversation | None:
    """A stopped or failed one that is to run."""
    if present.archived_at is not None:
        raise archived(present.kind)
    if present.phase in (Phase.STOPPED, Phase.FAILED):
        return replace(present, desired=Desired.RUNNING, restart_at=None)
    return None


def resumed(present: Conversation) -> Conversation | None:
    """A paused one that is to go on."""
    if present.phase in (Phase.PAUSING, Phase.PAUSED) or present.desired is Desired.PAUSED:
        return replace(present, desired=Desired.RUNNING)
    if present.desired is not Desired.RUNNING or present.phase is Phase.STOPPING:  # the clock stops one that is to run
        raise Conflict(f"the {present.kind} is {present.phase}", hint="wait until it is stopped, then start it")
    return None


def brought_back(present: Conversation) -> Conversation | None:
    """As a start makes of it. Raises `Conflict`."""
    return (started if present.phase in (Phase.STOPPED, Phase.FAILED) else resumed)(present)
