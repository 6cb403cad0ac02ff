"""Where a conversation is between two runs: the contract's execution_status and the moves between its values (4.4).

`advance` is the only way to a new status. Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class Status(enum.StrEnum):
    """The contract's whole list: clients refuse any other value."""

    IDLE = "idle"  #: nothing to do, or a message that nobody asked to run
    RUNNING = "running"  #: the agent works
    PAUSED = "paused"  #: the agent stopped between two steps because it was asked to
    WAITING_FOR_CONFIRMATION = "waiting_for_confirmation"  #: the agent wants leave for an act
    FINISHED = "finished"  #: the agent gave the turn back
    ERROR = "error"  #: the last run failed; a ConversationErrorEvent says why
    STUCK = "stuck"  #: the agent repeats itself
    DELETING = "deleting"  #: on its way out


class IllegalMove(Exception):
    """A conversation cannot go from the one status to the other."""

    def __init__(self, now: Status, to: Status) -> None:
        super().__init__(f"a conversation that is {now} cannot become {to}")


_ANYTHING_BUT_DELETING = frozenset(Status) - {Status.DELETING}

MOVES: Mapping[Status, frozenset[Status]] = {
    Status.IDLE: frozenset({Status.RUNNING, Status.DELETING}),
    Status.RUNNING: _ANYTHING_BUT_DELETING - {Status.RUNNING, Status.IDLE} | {Status.DELETING},
    Status.PAUSED: frozenset({Status.RUNNING, Status.DELETING}),
    Status.WAITING_FOR_CONFIRMATION: frozenset({Status.RUNNING, Status.IDLE, Status.DELETING}),
    Status.FINISHED: frozenset({Status.RUNNING, Status.IDLE, Status.DELETING}),
    Status.ERROR: frozenset({Status.RUNNING, Status.IDLE, Status.DELETING}),
    Status.STUCK: frozenset({Status.RUNNING, Status.IDLE, Status.DELETING}),
    Status.DELETING: frozenset(),
}

#: a message that nobody asked to run takes a conversation back from these
ENDED = frozenset({Status.FINISHED, Status.ERROR, Status.STUCK})


def advance(now: Status, to: Status) -> Status:
    """`to`, when the move is legal. Raises IllegalMove."""
    if to not in MOVES[now]:
        raise IllegalMove(now, to)
    return to
