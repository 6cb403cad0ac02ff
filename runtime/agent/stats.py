"""What the model calls of a conversation cost: tokens, money, time. Records of the wire contract (4.3).

The loop adds each answer's usage; the conversation keeps the record and shows it. Pure.
"""

from __future__ import annotations

import time
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

#: entries kept of each list: totals are exact, lists only show the latest, so that a state frame stays small
_KEPT = 200


class Record(BaseModel):
    model_config = ConfigDict(extra="ignore")


class TokenUsage(Record):
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    context_window: int = 0
    per_turn_token: int = 0
    response_id: str = ""


class Cost(Record):
    model: str
    cost: float
    timestamp: float


class Latency(Record):
    model: str
    latency: float
    response_id: str


class Metrics(Record):
    """Sums of one usage id, and the latest calls. Costs are US dollars, latencies seconds."""

    model_name: str = "default"
    accumulated_cost: float = 0.0
    max_budget_per_task: float | None = None
    accumulated_token_usage: TokenUsage | None = None
    costs: list[Cost] = Field(default_factory=list)
    response_latencies: list[Latency] = Field(default_factory=list)
    token_usages: list[TokenUsage] = Field(default_factory=list)


class Stats(Record):
    usage_to_metrics: dict[str, Metrics] = Field(default_factory=dict)

    def begin(self, usage_id: str, model: str) -> Metrics:
        """The metrics of a usage id, made empty when new."""
        if usage_id not in self.usage_to_metrics:
            self.usage_to_metrics[usage_id] = Metrics(model_name=model, accumulated_token_usage=TokenUsage(model=model))
        return self.usage_to_metrics[usage_id]

    def add(self, usage_id: str, usage: TokenUsage, *, cost: float, latency: float) -> None:
        """Count one answer of the model."""
        metrics = self.begin(usage_id, usage.model)
        total = metrics.accumulated_token_usage or TokenUsage(model=usage.model)
        metrics.accumulated_token_usage = TokenUsage(
            model=usage.model,
            prompt_tokens=total.prompt_tokens + usage.prompt_tokens,
            completion_tokens=total.completion_tokens + usage.completion_tokens,
            cache_read_tokens=total.cache_read_tokens + usage.cache_read_tokens,
            cache_write_tokens=total.cache_write_tokens + usage.cache_write_tokens,
            reasoning_tokens=total.reasoning_tokens + usage.reasoning_tokens,
            context_window=max(total.context_window, usage.context_window),
            per_turn_token=usage.per_turn_token,
        )
        metrics.accumulated_cost += cost
        if cost:
            metrics.costs = [*metrics.costs, Cost(model=usage.model, cost=cost, timestamp=time.time())][-_KEPT:]
        latest = Latency(model=usage.model, latency=latency, response_id=usage.response_id)
        metrics.response_latencies = [*metrics.response_latencies, latest][-_KEPT:]
        metrics.token_usages = [*metrics.token_usages, usage][-_KEPT:]

    def learn(self, told: Any) -> None:
        """Catch up with sums that were told (`compact`), where they are higher. Lists stay as they are."""
        try:
            found = Stats.model_validate(told).usage_to_metrics
        except ValidationError:  # of another server that wrote this log
            return
        for usage_id, metrics in found.items():
            own = self.begin(usage_id, metrics.model_name)
            if metrics.accumulated_cost >= own.accumulated_cost and _tokens(metrics) >= _tokens(own):
                own.accumulated_cost = metrics.accumulated_cost
                own.accumulated_token_usage = metrics.accumulated_token_usage

    @property
    def cost(self) -> float:
        """What all of it has cost, in US dollars."""
        return sum(metrics.accumulated_cost for metrics in self.usage_to_metrics.values())

    def compact(self) -> dict[str, Any]:
        """Sums only: the value of a `stats` state event."""
        lists = {"costs", "response_latencies", "token_usages"}
        shown = {name: metrics.model_dump(exclude=lists) for name, metrics in self.usage_to_metrics.items()}
        return {"usage_to_metrics": shown}


def _tokens(metrics: Metrics) -> int:
    usage = metrics.accumulated_token_usage
    return 0 if usage is None else usage.prompt_tokens + usage.completion_tokens
