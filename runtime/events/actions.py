"""What the agent may do (actions) and what came of it (observations): the closed records of the built-in tools.

The tools in `runtime.agent.tools` make these; `runtime.events.models` puts them into events. Field names, defaults and
kinds are the contract's; each action class is also the validator of a tool call's arguments.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    Tag,
    model_serializer,
)

from runtime.events.content import Closed, Content

#: the kinds of clients' actions begin with this
CLIENT_ACTION = "ClientAction_"


class TerminalAction(Closed):
    command: str
    is_input: bool = False
    timeout: float | None = Field(default=None, ge=0)
    reset: bool = False
    kind: Literal["TerminalAction"] = "TerminalAction"


EditorCommand = Literal["view", "create", "str_replace", "insert", "undo_edit"]


class FileEditorAction(Closed):
    command: EditorCommand
    path: str
    file_text: str | None = None
    old_str: str | None = None
    new_str: str | None = None
    insert_line: int | None = Field(default=None, ge=0)
    view_range: list[int] | None = None
    kind: Literal["FileEditorAction"] = "FileEditorAction"


class TaskItem(Closed):
    title: str
    notes: str = ""
    status: Literal["todo", "in_progress", "done"] = "todo"


class TaskTrackerAction(Closed):
    command: Literal["view", "plan"] = "view"
    task_list: list[TaskItem] = Field(default_factory=list)
    kind: Literal["TaskTrackerAction"] = "TaskTrackerAction"


class ThinkAction(Closed):
    thought: str
    kind: Literal["ThinkAction"] = "ThinkAction"


class FinishAction(Closed):
    message: str
    kind: Literal["FinishAction"] = "FinishAction"


class MCPToolAction(Closed):
    """A call of a tool of an MCP server; `data` holds its arguments."""

    data: dict[str, Any] = Field(default_factory=dict)
    kind: Literal["MCPToolAction"] = "MCPToolAction"


class ClientAction(BaseModel):
    """A call of a tool that the client defined: its fields are the client's, its kind is named after the tool."""

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)

    kind: Annotated[str, StringConstraints(pattern=rf"^{CLIENT_ACTION}\w+$")]

    @model_serializer(mode="wrap")
    def _kind_last(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        kind = fields.pop("kind")
        return {**fields, "kind": kind}


def _kind_of(value: Any) -> str | None:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return CLIENT_ACTION if isinstance(kind, str) and kind.startswith(CLIENT_ACTION) else kind


Action = Annotated[
    Annotated[TerminalAction, Tag("TerminalAction")]
    | Annotated[FileEditorAction, Tag("FileEditorAction")]
    | Annotated[TaskTrackerAction, Tag("TaskTrackerAction")]
    | Annotated[ThinkAction, Tag("ThinkAction")]
    | Annotated[FinishAction, Tag("FinishAction")]
    | Annotated[MCPToolAction, Tag("MCPToolAction")]
    | Annotated[ClientAction, Tag(CLIENT_ACTION)],
    Discriminator(_kind_of),
]


class TerminalMetadata(Closed):
    """Where and how a command ended; -1 means "not ended" for `exit_code` and "not known" for `pid`."""

    exit_code: int = -1
    pid: int = -1
    username: str | None = None
    hostname: str | None = None
    working_dir: str | None = None
    py_interpreter_path: str | None = None
    prefix: str = ""
    suffix: str = ""


class ObservationBase(Closed):
    content: list[Content] = Field(default_factory=list)
    is_error: bool = False


class TerminalObservation(ObservationBase):
    command: str | None
    exit_code: int | None = None
    timeout: bool = False
    metadata: TerminalMetadata = Field(default_factory=TerminalMetadata)
    full_output_save_dir: str | None = None
    kind: Literal["TerminalObservation"] = "TerminalObservation"


class FileEditorObservation(ObservationBase):
    command: EditorCommand
    path: str | None = None
    prev_exist: bool = True
    old_content: str | None = None
    new_content: str | None = None
    kind: Literal["FileEditorObservation"] = "FileEditorObservation"


class TaskTrackerObservation(ObservationBase):
    command: Literal["view", "plan"]
    task_list: list[TaskItem] = Field(default_factory=list)
    kind: Literal["TaskTrackerObservation"] = "TaskTrackerObservation"


class ThinkObservation(ObservationBase):
    kind: Literal["ThinkObservation"] = "ThinkObservation"


class FinishObservation(ObservationBase):
    kind: Literal["FinishObservation"] = "FinishObservation"


class MCPToolObservation(ObservationBase):
    tool_name: str
    kind: Literal["MCPToolObservation"] = "MCPToolObservation"


class ClientToolObservation(ObservationBase):
    kind: Literal["ClientToolObservation"] = "ClientToolObservation"


Observation = Annotated[
    TerminalObservation
    | FileEditorObservation
    | TaskTrackerObservation
    | ThinkObservation
    | FinishObservation
    | MCPToolObservation
    | ClientToolObservation,
    Field(discriminator="kind"),
]
