"""What the scripted model answers: the script inside a chat, and the step whose turn it is.

Pure: `model_server.py` calls it with a parsed request and turns the step into bytes. A script travels in a user
message as `SCRIPT:[...]`, so that whoever starts a conversation decides what its agent does.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator

MARK = "SCRIPT:"
#: The answers when no script is in sight: to a question without tools (a title, say), and to an agent.
PLAIN_ANSWER = "Fake title or answer"
AGENT_ANSWER = "OK."
#: The answer once the script is played to its end.
LAST_ANSWER = "Done."


class BadScript(ValueError):
    """A SCRIPT:[...] cannot be read; the message says which step is wrong and why."""


class ToolUse(BaseModel):
    """One call the model asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool: str
    args: dict[str, JsonValue] = Field(default_factory=dict)


class Step(BaseModel):
    """One answer of the model; the fields that are set say what it holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str | None = None
    tool: str | None = None
    args: dict[str, JsonValue] = Field(default_factory=dict)
    tools: tuple[ToolUse, ...] = ()
    #: Seconds before the answer begins.
    sleep: float = Field(default=0, ge=0)
    #: Seconds between the pieces of a streamed answer.
    slow: float = Field(default=0, ge=0)
    status: Literal[400, 401, 403, 404, 408, 413, 429, 500, 502, 503, 504] | None = None
    error: str = "scripted failure"
    #: With `status`: fail only so many times, then give the rest of the step (None: every time).
    times: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _says_something(self) -> "Step":
        if self.text is None and self.tool is None and not self.tools and self.status is None:
            raise ValueError("a step needs one of text, tool, tools, status")
        if self.tool is not None and self.tools:
            raise ValueError("a step has either tool or tools, not both")
        return self

    @property
    def uses(self) -> tuple[ToolUse, ...]:
        """The tool calls of this step, one or many or none."""
        return (ToolUse(tool=self.tool, args=self.args),) if self.tool is not None else self.tools


_STEPS: TypeAdapter[tuple[Step, ...]] = TypeAdapter(tuple[Step, ...])


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a chat message, whether its content is a string or a list of parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return ""


def parse_script(text: str) -> tuple[Step, ...]:
    """The steps written after the last mark in `text`; raises BadScript."""
    written = text[text.rindex(MARK) + len(MARK) :].lstrip()
    try:
        steps, _ = json.JSONDecoder().raw_decode(written)
        return _STEPS.validate_python(steps)
    except json.JSONDecodeError as exc:
        raise BadScript(f"{MARK} is not followed by JSON: {exc}") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        raise BadScript(f"{MARK} step {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from exc


def next_step(messages: Sequence[Mapping[str, Any]], *, has_tools: bool) -> Step:
    """The step whose turn it is: as many answers as the model gave since the last scripted user message."""
    scripted = [
        place for place, message in enumerate(messages) if message.get("role") == "user" and MARK in text_of(message)
    ]
    if not scripted:
        return Step(text=AGENT_ANSWER if has_tools else PLAIN_ANSWER)
    steps = parse_script(text_of(messages[scripted[-1]]))
    turn = sum(message.get("role") == "assistant" for message in messages[scripted[-1] + 1 :])
    return steps[turn] if turn < len(steps) else Step(text=LAST_ANSWER)


def write_script(steps: Sequence[Mapping[str, Any]]) -> str:
    """`steps` as the text to put into a user message; raises BadScript for a step the model could not play."""
    written = MARK + json.dumps(list(steps))
    parse_script(written)
    return written
