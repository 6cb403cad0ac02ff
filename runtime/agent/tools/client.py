"""Tools that a client defines and carries out itself: the call is told to it as an event, and it answers by a message.

Made from the start request's `client_tools`. The arguments are checked against the client's own JSON schema, so that
the agent hears of a mistake before the client does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from runtime.events.actions import CLIENT_ACTION, ClientAction, ClientToolObservation, Observation
from runtime.events.content import TextContent
from runtime.events.models import ClientToolDescription, ToolAnnotations, ToolDescription

DISPATCHED = "Tool call dispatched to client."
_RESERVED = frozenset({"terminal", "file_editor", "task_tracker", "think", "finish"})


class ClientToolSpec(BaseModel):
    """One tool of the wire (contract 4.1)."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,63}$")]
    description: Annotated[str, StringConstraints(max_length=10_000)]
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    annotations: ToolAnnotations | None = None

    @field_validator("name")
    @classmethod
    def _free(cls, name: str) -> str:
        if name in _RESERVED:
            raise ValueError(f"{name} is a tool of the agent's own: choose another name")
        return name

    @field_validator("parameters")
    @classmethod
    def _schema(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        if parameters.get("type", "object") != "object":
            raise ValueError("parameters must be the JSON schema of an object")
        from jsonschema import Draft202012Validator, SchemaError  # for few conversations, and not at the start

        try:
            Draft202012Validator.check_schema(parameters)
        except SchemaError as error:
            raise ValueError(f"parameters are no JSON schema: {error.message[:200]}") from None
        return parameters


class ClientTool:
    """Implements Tool."""

    def __init__(self, spec: ClientToolSpec) -> None:
        self.name = spec.name
        self.description = spec.description
        self.properties: Mapping[str, Any] = spec.parameters.get("properties", {})
        self.required: Sequence[str] = spec.parameters.get("required", [])
        self.kind = "".join(part.capitalize() for part in re.split(r"_+", spec.name) if part) or "Client"
        self.action_class = ClientAction
        self.annotations = spec.annotations or ToolAnnotations()
        self._schema = spec.parameters

    def action(self, arguments: Mapping[str, Any]) -> ClientAction:
        """The call as an action. Raises ValueError naming what does not fit the client's schema."""
        from jsonschema import Draft202012Validator

        wrong = next(iter(Draft202012Validator(self._schema).iter_errors(dict(arguments))), None)
        if wrong is not None:
            raise ValueError(f"{'.'.join(map(str, wrong.absolute_path)) or 'arguments'}: {wrong.message[:300]}")
        return ClientAction(**{**arguments, "kind": f"{CLIENT_ACTION}{self.name}"})

    def describe(self) -> ToolDescription:
        return ClientToolDescription(
            description=self.description,
            action_type=f"{CLIENT_ACTION}{self.name}",
            observation_type="ClientToolObservation",
            annotations=self.annotations,
            kind="ClientTool",
            title=self.name,
            client_tool_name=self.name,
            input_schema=self._schema,
        )

    async def run(self, action: ClientAction) -> Observation:
        return ClientToolObservation(content=[TextContent(text=DISPATCHED)])

    async def close(self) -> None:
        """Nothing runs."""


def checked_tools(specs: list[ClientToolSpec]) -> list[ClientToolSpec]:
    """The tools themselves. Raises ValueError when two have the same name."""
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        raise ValueError("two client tools have the same name")
    return specs
