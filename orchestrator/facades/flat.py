"""The settings as one flat record, the way both older generations know them."""

from collections.abc import Callable, Mapping
from typing import Any

Show = Callable[[Any], Any]  #: what becomes of a value that may hold secrets: a mark, or the text


def flat_settings(document: Mapping[str, Any], show: Show) -> dict[str, Any]:
    """The fields that have a place of their own in the nested document, over those that only this record has."""
    agent, conversation = document.get("agent_settings", {}), document.get("conversation_settings", {})
    llm = agent.get("llm", {})
    return {
        **{name: show(value) for name, value in document.get("older", {}).items()},
        "agent": agent.get("agent"),
        "llm_model": llm.get("model"),
        "llm_api_key": show(llm.get("api_key")),
        "llm_base_url": llm.get("base_url"),
        "max_iterations": conversation.get("max_iterations"),
        "confirmation_mode": conversation.get("confirmation_mode"),
        "security_analyzer": conversation.get("security_analyzer"),
    }
