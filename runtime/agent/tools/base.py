"""What every tool has: how the model is told of it, how its arguments are checked, how it is run.

A tool checks a call's arguments with its action class and answers an action with an observation. `Toolbox` is the set
of a conversation's tools. Every call may also carry `summary` and `security_risk`, which belong to the event and not to
the action. Knows nothing of the model or of logs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, get_args, runtime_checkable

from pydantic import BaseModel, ValidationError

from runtime.events.actions import Action, Observation
from runtime.events.models import Risk, ToolAnnotations, ToolDescription

_COMMON: Mapping[str, Any] = {
    "summary": {"type": "string", "description": "What this call does, in about ten words, for the person watching."},
    "security_risk": {
        "type": "string",
        "enum": ["UNKNOWN", "LOW", "MEDIUM", "HIGH"],
        "description": "Your judgement of the harm that this call could do.",
    },
}


class InvalidCall(Exception):
    """The call cannot be run as the model wrote it; the text tells the model what to change."""


@dataclass(frozen=True)
class Call:
    """A checked tool call."""

    action: Action
    summary: str | None
    risk: Risk = "UNKNOWN"  #: the model's own judgement


class Tool(Protocol):
    """One tool of one conversation; it may keep state between calls."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    #: JSON schema of the arguments
    @property
    def properties(self) -> Mapping[str, Any]: ...
    @property
    def required(self) -> Sequence[str]: ...
    #: the client's class names of tool, action and observation begin with this
    @property
    def kind(self) -> str: ...
    @property
    def action_class(self) -> type[BaseModel]: ...
    @property
    def annotations(self) -> ToolAnnotations: ...

    async def run(self, action: Any) -> Observation:
        """Do it. A failure that the model can react to is an observation with `is_error`, not an exception."""

    async def close(self) -> None:
        """End what the tool keeps running. Idempotent."""


@runtime_checkable
class Interruptible(Protocol):
    """A tool whose work goes on when the call that waits for it is cancelled."""

    async def interrupt(self) -> None:
        """Stop that work; the tool stays usable. Nothing runs: fine."""


@runtime_checkable
class Lasting(Protocol):
    """A tool that keeps something running between calls."""

    @property
    def at_work(self) -> bool:
        """Whether it does now, so that closing it would end somebody's work."""


@runtime_checkable
class Remembering(Protocol):
    """A tool that knows something of what the conversation's events say."""

    def forget(self) -> None:
        """They are others now: look again."""


@runtime_checkable
class Foreign(Protocol):
    """A tool whose arguments somebody else describes: it makes the action itself."""

    def action(self, arguments: Mapping[str, Any]) -> BaseModel:
        """Raises ValueError naming what does not fit."""

    def describe(self) -> ToolDescription:
        """As SystemPromptEvent announces it."""


class Servers(Protocol):
    """Who has tools outside of this process."""

    async def tools(self, taken: Sequence[str]) -> Sequence[Tool]:
        """Those that can be had now, under names that are free."""

    async def close(self) -> None:
        """End them. Idempotent."""


class Toolbox:
    """A conversation's tools by name."""

    def __init__(self, tools: Sequence[Tool], *, servers: Servers | None = None) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._own = dict(self._tools)
        self._servers = servers

    async def connect(self) -> None:
        """Take over the tools that servers have now; before each run. Servers that cannot be reached have none."""
        if self._servers is not None:
            self._tools = self._own | {tool.name: tool for tool in await self._servers.tools(list(self._own))}

    @property
    def names(self) -> list[str]:
        return list(self._tools)

    def schemas(self) -> list[dict[str, Any]]:
        """As the model's API wants them."""
        return [_schema(tool) for tool in self._tools.values()]

    def descriptions(self) -> list[ToolDescription]:
        """As SystemPromptEvent announces them."""
        return [_describe(tool) for tool in self._tools.values()]

    def check(self, name: str, arguments: str) -> Call:
        """The call's action. Raises InvalidCall for an unknown tool, broken JSON and arguments that do not fit."""
        tool = self._tools.get(name)
        if tool is None:
            raise InvalidCall(f"Tool '{name}' not found. Available: {self.names}")
        given = _parse(name, arguments)
        # A tool of somebody else may have arguments of these names itself.
        summary = given.pop("summary", None) if "summary" not in tool.properties else None
        risk = given.pop("security_risk", None) if "security_risk" not in tool.properties else None
        action: BaseModel | None
        try:
            if isinstance(tool, Foreign):
                action = tool.action(given)
            else:
                # A `kind` of the model's own would be an argument like any other, and is refused as one.
                action = tool.action_class.model_validate(given) if "kind" not in given else None
        except ValidationError as error:
            raise InvalidCall(_told(name, error, given)) from None
        except ValueError as error:
            raise InvalidCall(f"Error validating tool '{name}': {error}") from None
        if action is None:
            raise InvalidCall(f"Error validating tool '{name}': 'kind' is not an argument")
        return Call(
            action=action,  # type: ignore[arg-type]  # each action_class is one of the Action union
            summary=summary if isinstance(summary, str) and summary else None,
            risk=risk if risk in get_args(Risk) else "UNKNOWN",  # type: ignore[arg-type]  # it is one of them
        )

    async def run(self, name: str, action: Action) -> Observation:
        """Run a checked call."""
        return await self._tools[name].run(action)

    def may_overlap(self, name: str) -> bool:
        """Whether calls of this tool may run beside others: it only reads, or keeps everything to itself."""
        tool = self._tools.get(name)
        return tool is not None and tool.annotations.readOnlyHint

    @property
    def at_work(self) -> bool:
        """Whether a tool keeps something running that nobody waits for."""
        return any(isinstance(tool, Lasting) and tool.at_work for tool in self._tools.values())

    def forget(self) -> None:
        """The conversation goes on from another event: what tools remember of it may not be so."""
        for tool in self._tools.values():
            if isinstance(tool, Remembering):
                tool.forget()

    async def interrupt(self) -> None:
        """Stop what a call that was broken off left running, without ending the tools. Idempotent."""
        for tool in self._tools.values():
            if isinstance(tool, Interruptible):
                await tool.interrupt()

    async def close(self) -> None:
        """End what the tools keep running. Idempotent."""
        for tool in self._tools.values():
            await tool.close()
        if self._servers is not None:
            await self._servers.close()


def _parse(name: str, arguments: str) -> dict[str, Any]:
    try:
        given = json.loads(arguments or "{}")
    except ValueError as error:
        raise InvalidCall(f"Error validating tool '{name}': the arguments are not valid JSON ({error})") from None
    if not isinstance(given, dict):
        raise InvalidCall(f"Error validating tool '{name}': the arguments must be a JSON object")
    try:
        json.dumps(given, ensure_ascii=False).encode()
    except ValueError:  # half of a surrogate pair: no file and no event can hold it
        raise InvalidCall(f"Error validating tool '{name}': the arguments hold text that is no Unicode") from None
    return given


def _told(name: str, error: ValidationError, given: Mapping[str, Any]) -> str:
    wrong = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_input=False)]
    return f"Error validating tool '{name}': {'; '.join(wrong)}. Parameters provided: {list(given)}"


def _schema(tool: Tool) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": {**_COMMON, **tool.properties},
        "required": list(tool.required),
    }
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def _describe(tool: Tool) -> ToolDescription:
    if isinstance(tool, Foreign):
        return tool.describe()
    return ToolDescription(
        description=tool.description,
        action_type=f"{tool.kind}Action",
        observation_type=f"{tool.kind}Observation",
        annotations=tool.annotations,
        kind=f"{tool.kind}Tool",
        title=tool.name,
    )
