"""How a conversation wants to be found in traces (contract 4.1): a name, tags and values of its creator's choosing.

Kept with the conversation, so that forks, children and a restart have them, and said in the line that each run leaves
in the server's log. No tracing service is called. Pure.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

_Scalar = StrictStr | StrictBool | StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]
_List = list[StrictStr] | list[StrictBool] | list[StrictInt] | list[Annotated[StrictFloat, Field(allow_inf_nan=False)]]
DEFAULT_SPAN_NAME = "conversation"

SpanName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:/-]+$")]
TraceTags = Annotated[list[Annotated[str, Field(min_length=1, max_length=1_000)]], Field(max_length=100)]
#: each value a text, a number, a truth value, or a list of one of them
TraceMetadata = Annotated[dict[Annotated[str, Field(min_length=1)], _Scalar | _List], Field(max_length=100)]
ParentSpan = Annotated[str, Field(max_length=10_000)]


class Observability(BaseModel):
    """All of them; a conversation of which nobody said anything has the defaults."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    span_name: SpanName = DEFAULT_SPAN_NAME
    tags: TraceTags = Field(default_factory=list)
    metadata: TraceMetadata = Field(default_factory=dict)
    parent_span_context: ParentSpan | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """What a log line says of them: only what was said."""
        return {f"trace_{name}": value for name, value in self.model_dump(exclude_defaults=True).items()}
