"""A snapshot: a conversation's log and workspace as they were together, at one event, kept to be forked from."""

from dataclasses import dataclass
from datetime import datetime
from typing import NewType

from orchestrator.domain.ids import UserId

SnapshotId = NewType("SnapshotId", str)


@dataclass(frozen=True)
class Snapshot:
    """`at`: the number of the last event of the log at that moment. `size` in bytes, of both together. `user`: who made
    it, None for the tenant."""

    id: SnapshotId
    at: int
    size: int
    created_at: datetime
    user: UserId | None = None
