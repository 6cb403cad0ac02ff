"""Start tasks of V1: the operation of a start, told by V1's stages.

A task has the operation's id. Where the operation is not kept any more (24 hours), or nothing had to be started, the
conversation's own id names a task that says where it is.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import anyio

from orchestrator.api.auth import Owner
from orchestrator.api.context import Services
from orchestrator.domain.clock import rfc3339
from orchestrator.domain.conversation import Conversation
from orchestrator.domain.errors import NotFound
from orchestrator.domain.ids import ConversationId, OperationId
from orchestrator.domain.operation import Operation, OperationState, StageState
from orchestrator.facades import record
from orchestrator.facades.app_conversations.record import sandbox_id_of, selected

#: The step that runs -> what V1 calls it; before the first one it is WORKING.
STAGES: Mapping[str, str] = {
    **dict.fromkeys(("claim", "volume", "create", "start", "alive", "init"), "WAITING_FOR_SANDBOX"),
    **dict.fromkeys(("settings", "providers", "secrets"), "PREPARING_REPOSITORY"),
    **dict.fromkeys(("converse", "publish"), "STARTING_CONVERSATION"),
}
_STARTS = frozenset({"start", "restart", "resume"})
ENDED = frozenset({"READY", "ERROR"})
_LOOK_SECONDS = 0.25
_STREAM_SECONDS = 600.0


async def task_of(services: Services, conversation: Conversation) -> dict[str, Any]:
    """The task of its present start."""
    store, operation = services.store.operations, None
    if conversation.operation is not None:
        operation = await store.get(conversation.tenant, conversation.operation)
    if operation is None or operation.kind not in _STARTS:
        return await _told(services, conversation, None)
    return await _told(services, conversation, operation)


async def find(services: Services, owner: Owner, id: str) -> dict[str, Any] | None:
    """The task of this id, None where there is none for this caller."""
    try:
        operation = await services.conversations.operation(owner.tenant, owner.user, OperationId(id))
        conversation = await services.conversations.get(owner.tenant, owner.user, operation.conversation)
    except NotFound:
        return await _by_conversation(services, owner, ConversationId(id))
    return await _told(services, conversation, operation) if operation.kind in _STARTS else None


async def follow(services: Services, owner: Owner, conversation: Conversation) -> AsyncIterator[dict[str, Any]]:
    """The task each time that it changed, until it has ended or the conversation is gone."""
    before = None
    with anyio.move_on_after(_STREAM_SECONDS), services.arrivals.of(conversation.id) as news:
        while True:
            task = await task_of(services, conversation)
            if (task["status"], task["detail"]) != before:
                yield task
            if task["status"] in ENDED:
                return
            before = task["status"], task["detail"]
            await news.wait(_LOOK_SECONDS)
            try:
                conversation = await services.conversations.get(owner.tenant, owner.user, conversation.id)
            except NotFound:
                return


async def _by_conversation(services: Services, owner: Owner, id: ConversationId) -> dict[str, Any] | None:
    try:
        return await _told(services, await services.conversations.get(owner.tenant, owner.user, id), None)
    except NotFound:
        return None


async def _told(services: Services, conversation: Conversation, operation: Operation | None) -> dict[str, Any]:
    origin, told = record.origin_of(services, conversation), await record.told_of(services, conversation)
    now = told.start_task or "READY"  # it is paused or stopped: it was there once
    status, detail = (now, None) if operation is None else _stage(operation)
    if status == "READY" and origin is None:  # the record is older than the operation, or it changed since
        status = now
    if status == "ERROR" and detail is None:
        detail = conversation.why.message
    at = operation or conversation
    return {
        "id": operation.id if operation is not None else conversation.id,
        "created_by_user_id": conversation.user,
        "status": status,
        "detail": detail,
        "app_conversation_id": conversation.id,
        "sandbox_id": sandbox_id_of(conversation),
        "agent_server_url": origin if status == "READY" else None,
        "request": _request(conversation),
        "created_at": rfc3339(at.created_at),
        "updated_at": rfc3339(at.updated_at),
    }


def _stage(operation: Operation) -> tuple[str, str | None]:
    match operation.state:
        case OperationState.SUCCEEDED:
            return "READY", None
        case OperationState.FAILED:
            failure = operation.failure
            return "ERROR", failure.message if failure is not None else "another request took the place of this start"
        case OperationState.RUNNING:
            running = [stage for stage in operation.stages if stage.state is not StageState.WAITING]
            return STAGES.get(running[-1].name, "WORKING") if running else "WORKING", None


def _request(conversation: Conversation) -> dict[str, Any]:
    """What was asked for, without what is secret."""
    text = conversation.request.initial_message
    first = None if text is None else {"role": "user", "content": [{"type": "text", "text": text}], "run": True}
    return {
        "conversation_id": conversation.id,
        "sandbox_id": None,
        "initial_message": first,
        "title": conversation.title,
        "llm_model": record.label(conversation, "llm_model"),
        **selected(conversation),
        "trigger": record.label(conversation, "trigger"),
        "pr_number": record.numbers_of(conversation),
        "parent_conversation_id": record.label(conversation, "parent"),
    }
