"""An app-conversation as V1 tells it: the conversation, where its sandbox is, and what its agent does."""

from typing import Any

from orchestrator.api.auth import Owner
from orchestrator.api.context import Services
from orchestrator.domain.clock import rfc3339
from orchestrator.domain.conversation import Conversation, Phase
from orchestrator.facades import record


async def app_conversation_out(services: Services, owner: Owner, one: Conversation) -> dict[str, Any]:
    """The record. One whose sandbox is gone stays, as MISSING, without address and key."""
    origin, told = record.origin_of(services, one), await record.told_of(services, one)
    runs = one.phase is Phase.READY
    return {
        "id": one.id,
        "created_by_user_id": one.user,
        "sandbox_id": sandbox_id_of(one),
        "title": one.title,
        **selected(one),
        "trigger": record.label(one, "trigger"),
        "pr_number": record.numbers_of(one),
        "llm_model": record.label(one, "llm_model"),
        "metrics": None,
        "tags": {name: value for name, value in one.labels.items() if not name.startswith(record.LABELS)},
        "parent_conversation_id": record.label(one, "parent"),
        "sub_conversation_ids": [],
        "public": record.label(one, "public") == "true",
        "created_at": rfc3339(one.created_at),
        "updated_at": rfc3339(one.updated_at),
        "sandbox_status": told.sandbox or "MISSING",
        "execution_status": await services.transcript.execution_status(one) if runs else None,
        "conversation_url": None if origin is None else f"{origin}/api/conversations/{one.id}",
        "session_api_key": await record.session_key_of(services, owner, one),
    }


def selected(one: Conversation) -> dict[str, Any]:
    """The repository that was chosen, or was told later."""
    return {
        "selected_repository": record.label(one, "selected_repository") or one.request.repository,
        "selected_branch": record.label(one, "selected_branch") or one.request.branch,
        "git_provider": record.label(one, "git_provider") or one.request.git_provider,
    }


def sandbox_id_of(one: Conversation) -> str | None:
    """The same for all of its generations."""
    return one.runtime.id if one.runtime is not None else None
