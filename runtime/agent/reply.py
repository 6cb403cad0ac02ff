"""What a model answered, and how asking it can fail; records between `llm`, which knows the library, and the loop."""

from __future__ import annotations

from dataclasses import dataclass, field

from runtime.agent.stats import TokenUsage
from runtime.events.content import AnyThinkingBlock, ToolCall
from runtime.events.models import ErrorClassification

#: the code of a ModelError that says that the history is too long for the model
CONTEXT_EXCEEDED = "LLMContextWindowExceedError"


@dataclass(frozen=True)
class CompletionLog:
    """One call whole, as JSON. `filename` is the name that a client gives the file that it writes."""

    filename: str
    text: str
    model: str
    usage_id: str


@dataclass(frozen=True)
class Reply:
    """One answer: text, tool calls or both. Cost in US dollars, latency in seconds."""

    text: str
    tool_calls: list[ToolCall]
    response_id: str
    usage: TokenUsage
    cost: float
    latency: float
    reasoning: str | None = None
    thinking_blocks: list[AnyThinkingBlock] = field(default_factory=list)
    log: CompletionLog | None = None  #: where the settings ask for it


class ModelError(Exception):
    """The model could not be asked or refused; retries are used up. `detail` may quote the provider: mask it."""

    def __init__(self, code: str, detail: str, classification: ErrorClassification) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.classification = classification


class AskingAbandoned(Exception):
    """The run was paused while a retry was due."""
