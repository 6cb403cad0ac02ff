"""What came of one conversation, and of the whole run: values for the closing table and the exit status."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.demo.git_server import Commit
from orchestrator.demo.native import Stage
from orchestrator.demo.story import Task


@dataclass(frozen=True)
class Cost:
    """What the model was used for, summed over everything the runtime counts."""

    tokens_in: int = 0
    tokens_out: int = 0
    dollars: float = 0.0


def cost_of(stats: Mapping[str, Any]) -> Cost:
    """The sum of `usage_to_metrics` of a conversation's statistics."""
    metrics: Sequence[Mapping[str, Any]] = list((stats.get("usage_to_metrics") or {}).values())
    usages = [entry.get("accumulated_token_usage") or {} for entry in metrics]
    return Cost(
        tokens_in=sum(int(usage.get("prompt_tokens") or 0) for usage in usages),
        tokens_out=sum(int(usage.get("completion_tokens") or 0) for usage in usages),
        dollars=sum(float(entry.get("accumulated_cost") or 0) for entry in metrics),
    )


@dataclass
class Outcome:
    """One conversation, filled in while it is played. `misses` empty at the end means that everything happened."""

    conversation: str
    tenant: str  #: its name
    tenant_id: str
    task: Task
    runtime: str = ""
    stages: tuple[Stage, ...] = ()
    live_events: int = 0
    commit: Commit | None = None
    cost: Cost = field(default_factory=Cost)
    stranger_sees: str = ""
    misses: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """How the conversation is called on the screen."""
        return f"{self.tenant.lower()}/{self.task.name}"

    @property
    def short(self) -> str:
        return self.conversation[:8]
