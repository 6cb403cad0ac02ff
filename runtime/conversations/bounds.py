"""Keeps the whole state below what a socket's client takes.

It grows with the statistics of every answer and with what a user puts into the agent's context, while a client needs
the status, the totals and the workspace. What is left out can be read over REST. Pure.
"""

from __future__ import annotations

import json
from typing import Any

from runtime.events.frames import LARGEST_EVENT

#: the event around the value, and what escaping adds
_MARGIN = 50_000
_LISTS = ("costs", "response_latencies", "token_usages")
_KEPT_ENTRIES = 100
#: what may go from the agent when the statistics were not the reason
_AGENT_DETAILS = ("agent_context", "mcp_config", "system_prompt", "system_prompt_kwargs")
#: what a client looks at; `agent` stays by its kind and model
_NEEDED = ("id", "execution_status", "confirmation_policy", "workspace", "persistence_dir", "last_user_message_id")


def bounded(state: dict[str, Any], *, limit: int = LARGEST_EVENT - _MARGIN) -> dict[str, Any]:
    """The state, with as little left out as the limit (bytes of JSON) allows."""
    for shrink in (_with_recent_statistics, _with_small_agent, _needed):
        if _size(state) <= limit:
            return state
        state = shrink(state)
    return state


def _size(state: dict[str, Any]) -> int:
    return len(json.dumps(state, ensure_ascii=False).encode(errors="replace"))


def _with_recent_statistics(state: dict[str, Any]) -> dict[str, Any]:
    usages = state.get("stats", {}).get("usage_to_metrics", {})
    recent = {
        name: {key: value[-_KEPT_ENTRIES:] if key in _LISTS else value for key, value in usage.items()}
        for name, usage in usages.items()
    }
    return {**state, "stats": {**state.get("stats", {}), "usage_to_metrics": recent}}


def _with_small_agent(state: dict[str, Any]) -> dict[str, Any]:
    agent = {key: value for key, value in state.get("agent", {}).items() if key not in _AGENT_DETAILS}
    return {**state, "agent": agent}


def _needed(state: dict[str, Any]) -> dict[str, Any]:
    kept = {key: state[key] for key in _NEEDED if key in state}
    agent = state.get("agent", {})
    llm = {key: agent["llm"][key] for key in ("model", "usage_id") if key in agent.get("llm", {})}
    return {**kept, "agent": {"kind": agent.get("kind", "Agent"), "llm": llm, "tools": []}, "stats": _totals(state)}


def _totals(state: dict[str, Any]) -> dict[str, Any]:
    usages = state.get("stats", {}).get("usage_to_metrics", {})
    totals = {
        name: {key: value for key, value in usage.items() if key not in _LISTS} | {key: [] for key in _LISTS}
        for name, usage in list(usages.items())[:_KEPT_ENTRIES]
    }
    return {"usage_to_metrics": totals}
