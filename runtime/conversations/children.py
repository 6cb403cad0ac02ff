"""What a conversation asks for when it hands a part of its work to a child (contract 4.5). Pure.

A child works under the rules of its parent: its agent, secrets, hooks, leave and limits are the parent's as they are
when it is made.
"""

from __future__ import annotations

from runtime.agent.tools.client import ClientToolSpec
from runtime.conversations.policies import analyzer_of, policy_of
from runtime.conversations.record import ConversationRecord
from runtime.conversations.start import GivenMessage, StartRequest
from runtime.events.content import TextContent
from runtime.machine.worktrees import WorktreeOptions


def child_of(parent: ConversationRecord, task: str, *, title: str | None, worktree: bool) -> StartRequest:
    """The child's request; a working tree of its own begins at what the parent has committed."""
    # What the parent has was validated when it came: to validate it again would open secrets that are open.
    return StartRequest.model_construct(
        workspace=parent.workspace,
        worktree=worktree,
        worktree_options=WorktreeOptions(base="head"),
        agent=parent.agent.model_copy(deep=True),
        conversation_id=None,
        parent_conversation_id=parent.id,
        initial_message=GivenMessage(content=[TextContent(text=task)]),
        secrets=dict(parent.secrets),
        max_iterations=parent.max_iterations,
        max_budget_per_run=parent.max_budget_per_run,
        stuck_detection=parent.stuck_detection,
        stuck_detection_thresholds=parent.stuck_thresholds,
        confirmation_policy=policy_of(parent.confirmation_policy),
        security_analyzer=analyzer_of(parent.security_analyzer),
        hook_config=parent.hook_config,
        client_tools=[ClientToolSpec.model_validate(spec) for spec in parent.client_tools],
        tool_module_qualnames=parent.tool_module_qualnames,
        tags={},
        title=title,
        autotitle=parent.autotitle,
        title_llm_profile=parent.title_llm_profile,
        observability_span_name=parent.observability.span_name,
        observability_tags=list(parent.observability.tags),
        observability_metadata=dict(parent.observability.metadata),
        observability_parent_span_context=parent.observability.parent_span_context,
    )
