"""What stands between the agent's wish and its act: confirmation, hooks, the budget. Implements the loop's Gate.

Made by the runner for one run. It asks nobody itself: it says that somebody has to be asked, and the run ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from runtime.agent.tools.base import Call
from runtime.conversations.conversation import Conversation
from runtime.conversations.hooks import HookDefinition, HookResult, run_hook
from runtime.conversations.policies import must_confirm
from runtime.events.actions import FinishAction, Observation, TaskTrackerAction, ThinkAction
from runtime.events.content import TextContent
from runtime.events.models import ActionEvent, HookExecutionEvent, HookPoint, Risk

if TYPE_CHECKING:
    from runtime.conversations.versions import Versions

log = structlog.get_logger()

_NO_REASON = "Blocked by a hook."


class ConversationGate:
    """Reads the record each time: policies may be changed while the agent works."""

    def __init__(
        self, conversation: Conversation, *, environment: Mapping[str, str], versions: Versions | None = None
    ) -> None:
        self._conversation = conversation
        self._versions = versions
        self._environment = environment
        self._spent_before = conversation.record.stats.cost
        self._background: set[asyncio.Task[HookResult]] = set()

    def judged(self, risk: Risk) -> Risk:
        return risk if self._conversation.record.security_analyzer is not None else "UNKNOWN"

    def must_ask(self, risks: Sequence[Risk]) -> bool:
        record = self._conversation.record
        return must_confirm(record.confirmation_policy, record.security_analyzer, risks)

    def over_budget(self) -> bool:
        record = self._conversation.record
        return record.max_budget_per_run is not None and self._spent() >= record.max_budget_per_run

    def _spent(self) -> float:
        return self._conversation.record.stats.cost - self._spent_before

    async def before(self, event: ActionEvent, call: Call) -> str | None:
        """PreToolUse, once there is a version of the workspace as it is before. The first hook that blocks is the last
        that runs."""
        if self._versions is not None and self._touches(call):
            await self._versions.before_act()
        given = {"tool_name": event.tool_name, "tool_input": call.action.model_dump(mode="json")}
        return await self._ask("PreToolUse", given, action_id=event.id)

    async def after(self, event: ActionEvent, call: Call, observation: Observation) -> None:
        """PostToolUse; it can block nothing any more."""
        given = {
            "tool_name": event.tool_name,
            "tool_input": call.action.model_dump(mode="json"),
            "tool_response": observation.model_dump(mode="json"),
        }
        await self._ask("PostToolUse", given, action_id=event.id)

    def concluded(self, call: Call) -> None:
        """A version of what it may have left is taken, while the model is asked."""
        if self._versions is not None and self._touches(call):
            self._versions.acted()

    def _touches(self, call: Call) -> bool:
        """Whether it may change files, or a hook that goes with it."""
        harmless = isinstance(call.action, FinishAction | ThinkAction | TaskTrackerAction)
        return not harmless or self._conversation.record.hook_config is not None

    async def session(self, point: HookPoint) -> None:
        """SessionStart or SessionEnd."""
        await self._ask(point, {})

    async def submitted(self, message: str, message_id: str) -> tuple[str | None, list[TextContent]]:
        """UserPromptSubmit: why the message is not to be answered, and what the hooks add to it."""
        contexts: list[TextContent] = []
        reason = await self._ask("UserPromptSubmit", {"message": message}, message_id=message_id, contexts=contexts)
        return reason, contexts

    async def stopping(self) -> str | None:
        """Stop: why the agent has to go on, None when it may end its turn."""
        return await self._ask("Stop", {"metadata": {"reason": "agent_finished"}})

    async def _ask(
        self,
        point: HookPoint,
        given: Mapping[str, Any],
        *,
        action_id: str | None = None,
        message_id: str | None = None,
        contexts: list[TextContent] | None = None,
    ) -> str | None:
        hooks = self._conversation.record.hook_config
        for hook in hooks.at(point, given.get("tool_name")) if hooks is not None else ():
            told = {"action_id": action_id, "message_id": message_id}
            if hook.background:
                self._start(self._tell(hook, point, given, told))
                continue
            result = await self._tell(hook, point, given, told)
            if contexts is not None and result.additional_context:
                contexts.append(TextContent(text=self._conversation.mask.text(result.additional_context)))
            if result.blocked:
                # What a hook adds is most of what it has to say, where no message is there to be added to.
                words = [result.reason, result.additional_context if contexts is None else None]
                return "\n".join(word for word in words if word) or _NO_REASON
        return None

    async def _tell(
        self, hook: HookDefinition, point: HookPoint, given: Mapping[str, Any], told: Mapping[str, str | None]
    ) -> HookResult:
        """Run one and put into the log what it did, masked."""
        conversation = self._conversation
        result = await asyncio.to_thread(
            run_hook,
            hook,
            point=point,
            given={**given, "session_id": str(conversation.id)},
            directory=Path(conversation.record.workspace.working_dir),
            environment=self._environment,
        )
        mask = conversation.mask
        conversation.emit(
            HookExecutionEvent,
            hook_event_type=point,
            hook_command=mask.text(hook.name or hook.command),
            tool_name=given.get("tool_name"),
            success=result.success,
            blocked=result.blocked,
            exit_code=result.exit_code,
            stdout=mask.text(result.stdout),
            stderr=mask.text(result.stderr),
            reason=None if result.reason is None else mask.text(result.reason),
            additional_context=None if result.additional_context is None else mask.text(result.additional_context),
            error=result.error,
            hook_input=mask.tree(dict(given)) or None,
            action_id=told["action_id"],
            message_id=told["message_id"],
        )
        return result

    def _start(self, work: Coroutine[Any, Any, HookResult]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[HookResult]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("hook.not_told", error=type(error).__name__)  # its conversation was closed meanwhile
