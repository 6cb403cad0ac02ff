"""The outbox of one tenant in memory: what `scripts/outbox.lua` does, step by step the same."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.domain.hooks import TENANT_LANE, Attempt, Draft, Gap, HookEndpoint
from orchestrator.domain.ids import HookId

_GAP = re.compile(r"gap:(\d+):(\d+):(\d+):(\w+):(\d+)")


@dataclass
class Lane:
    entries: list[str] = field(default_factory=list)
    due_ms: int = 0
    tries: int = 0


@dataclass
class Endpoint:
    """One endpoint with what waits for it. `queue_bytes` None: it does not listen."""

    record: HookEndpoint
    queue_bytes: int | None
    lanes: dict[str, Lane] = field(default_factory=dict)
    failures: int = 0
    failing_since_ms: int | None = None
    rests_until_ms: int | None = None
    log: list[Attempt] = field(default_factory=list)

    @property
    def waiting_bytes(self) -> int:
        return sum(len(entry.encode()) for lane in self.lanes.values() for entry in lane.entries)

    def wants(self, type: str) -> bool:
        return self.queue_bytes is not None and (not self.record.events or type in self.record.events)

    def append(self, lane: str, entry: str, now_ms: int) -> None:
        self.lanes.setdefault(lane, Lane(due_ms=now_ms)).entries.append(entry)

    def gap(self, first: int, last: int, count: int, reason: Gap, now_ms: int) -> None:
        """Markers of one reason that follow each other become one."""
        lane = self.lanes.get(TENANT_LANE)
        newest = _GAP.fullmatch(lane.entries[-1]) if lane else None
        if lane is not None and newest is not None and newest[4] == reason:
            lane.entries[-1] = f"gap:{newest[1]}:{last}:{int(newest[3]) + count}:{reason}:{newest[5]}"
        else:
            self.append(TENANT_LANE, f"gap:{first}:{last}:{count}:{reason}:{now_ms}", now_ms)


@dataclass
class Outbox:
    endpoints: dict[HookId, Endpoint] = field(default_factory=dict)
    sequence: int = 0
    once: dict[str, int] = field(default_factory=dict)

    def publish(self, lane: str, drafts: Sequence[Draft], now_ms: int) -> None:
        for draft in drafts:
            takers = [endpoint for endpoint in self.endpoints.values() if endpoint.wants(draft.type)]
            if not takers:
                continue
            self.sequence += 1
            entry = f"{self.sequence}:{draft.text}"
            for endpoint in takers:
                if endpoint.waiting_bytes + len(entry.encode()) > (endpoint.queue_bytes or 0):
                    endpoint.gap(self.sequence, self.sequence, 1, Gap.FULL, now_ms)
                else:
                    endpoint.append(lane, entry, now_ms)
