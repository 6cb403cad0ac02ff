"""What one call of a model was, whole, for settings that ask for it (`log_completions`; contract 5.2). Pure.

Made where the call is made and put into the conversation's log as an LLMCompletionLogEvent, masked there. Keys and
headers of the call are no part of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from runtime.agent.reply import CompletionLog, Reply
from runtime.configuration.record import LlmSettings

_SAID = ("temperature", "top_p", "top_k", "max_output_tokens", "seed", "reasoning_effort", "stream")


def completion_log(
    llm: LlmSettings, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], reply: Reply
) -> CompletionLog:
    """The request and its answer in one JSON text, not masked yet."""
    now, usage = time.time(), reply.usage
    told: dict[str, Any] = {
        "context_window": usage.context_window,
        "messages": list(messages),
        "tools": list(tools),
        "kwargs": {name: value for name in _SAID if (value := getattr(llm, name)) is not None},
        "response": _response(llm, reply),
        "cost": reply.cost,
        "timestamp": now,
        "latency_sec": reply.latency,
        "usage_summary": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "cache_read_tokens": usage.cache_read_tokens,
        },
    }
    return CompletionLog(
        filename=f"{llm.model.replace('/', '__')}-{now:.3f}-{uuid4().hex[:4]}.json",
        text=json.dumps(told, ensure_ascii=False, default=str),
        model=llm.model,
        usage_id=llm.usage_id,
    )


def _response(llm: LlmSettings, reply: Reply) -> dict[str, Any]:
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in reply.tool_calls
    ]
    message = {
        "role": "assistant",
        "content": reply.text or None,
        "reasoning_content": reply.reasoning,
        "tool_calls": calls or None,
    }
    choice = {"index": 0, "finish_reason": "tool_calls" if calls else "stop", "message": message}
    return {"id": reply.response_id, "object": "chat.completion", "model": llm.model, "choices": [choice]}
