"""The tools without effects: think, finish, and the task list."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from runtime.events.actions import (
    FinishAction,
    FinishObservation,
    Observation,
    TaskItem,
    TaskTrackerAction,
    TaskTrackerObservation,
    ThinkAction,
    ThinkObservation,
)
from runtime.events.content import Closed, TextContent
from runtime.events.models import ToolAnnotations


class ThinkTool:
    """Lets the model write down a thought between two acts."""

    name: ClassVar[str] = "think"
    description: ClassVar[str] = (
        "Write down a thought: a plan, a comparison of ways, what an error may mean. Nothing is run or changed."
    )
    properties: ClassVar[Mapping[str, Any]] = {"thought": {"type": "string", "description": "The thought."}}
    required: ClassVar[Sequence[str]] = ("thought",)
    kind: ClassVar[str] = "Think"
    action_class: ClassVar[type[Closed]] = ThinkAction
    annotations: ClassVar[ToolAnnotations] = ToolAnnotations(
        readOnlyHint=True, destructiveHint=False, idempotentHint=True, openWorldHint=False
    )

    async def run(self, action: ThinkAction) -> Observation:
        return ThinkObservation(content=[TextContent(text="Your thought has been logged.")])

    async def close(self) -> None:
        """Nothing runs."""


class FinishTool:
    """Ends the turn with a last message; the loop looks for its action."""

    name: ClassVar[str] = "finish"
    description: ClassVar[str] = (
        "End your turn. Call this when the task is done, or when you cannot go on without the user. "
        "The message says what was done, what was not, and what the user should know."
    )
    properties: ClassVar[Mapping[str, Any]] = {"message": {"type": "string", "description": "Last words to the user."}}
    required: ClassVar[Sequence[str]] = ("message",)
    kind: ClassVar[str] = "Finish"
    action_class: ClassVar[type[Closed]] = FinishAction
    annotations: ClassVar[ToolAnnotations] = ToolAnnotations(
        title="finish", readOnlyHint=True, destructiveHint=False, idempotentHint=True, openWorldHint=False
    )

    async def run(self, action: FinishAction) -> Observation:
        return FinishObservation(content=[TextContent(text=action.message)])

    async def close(self) -> None:
        """Nothing runs."""


class TaskTrackerTool:
    """The model's list of tasks, which lives in the conversation's events: `recall` reads it there (blocking) when a
    conversation that was loaded anew needs it; None: nobody has made one."""

    name: ClassVar[str] = "task_tracker"
    description: ClassVar[str] = (
        "Keep a list of tasks for work of several steps. `plan` replaces the whole list, `view` shows it. "
        "Mark a task in_progress before you begin it and done when it is done. Short tasks need no list."
    )
    properties: ClassVar[Mapping[str, Any]] = {
        "command": {"type": "string", "enum": ["view", "plan"], "description": "Show the list, or replace it."},
        "task_list": {
            "type": "array",
            "description": "The whole new list; for `plan`.",
            "items": {
                "type": "object",
                "properties": {
                    "title": {"type": "string", "description": "What is to be done."},
                    "notes": {"type": "string", "description": "Details worth keeping."},
                    "status": {"type": "string", "enum": ["todo", "in_progress", "done"]},
                },
                "required": ["title"],
            },
        },
    }
    required: ClassVar[Sequence[str]] = ("command",)
    kind: ClassVar[str] = "TaskTracker"
    action_class: ClassVar[type[Closed]] = TaskTrackerAction
    annotations: ClassVar[ToolAnnotations] = ToolAnnotations(
        readOnlyHint=False, destructiveHint=False, idempotentHint=True, openWorldHint=False
    )

    def __init__(self, recall: Callable[[], Sequence[TaskItem] | None] = lambda: None) -> None:
        self._recall = recall
        self._tasks: list[TaskItem] | None = None

    async def run(self, action: TaskTrackerAction) -> Observation:
        if action.command == "plan":
            self._tasks = list(action.task_list)
            text = f"Task list has been updated with {len(self._tasks)} item(s)."
        else:
            if self._tasks is None:
                found = await asyncio.to_thread(self._recall)
                self._tasks = [] if found is None else list(found)
            text = _shown(self._tasks)
        return TaskTrackerObservation(
            content=[TextContent(text=text)], command=action.command, task_list=list(self._tasks)
        )

    def forget(self) -> None:
        self._tasks = None

    async def close(self) -> None:
        """Nothing runs."""


def _shown(tasks: Sequence[TaskItem]) -> str:
    if not tasks:
        return "The task list is empty."
    return "\n".join(
        f"{n}. [{task.status}] {task.title}" + (f"\n   {task.notes}" if task.notes else "")
        for n, task in enumerate(tasks, start=1)
    )
