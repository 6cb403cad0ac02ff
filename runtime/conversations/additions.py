"""What a start request adds to its agent, wherever that came from (contract 4.1, `agent_launch_additions`). Pure."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from runtime.configuration.record import AgentContext
from runtime.conversations.definition import AgentDefinition


class LaunchAdditions(BaseModel):
    """`llm_profile_ref` is for an agent profile, and is heeded where that is resolved."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    system_message_suffix_append: Annotated[str, Field(max_length=32_768)] | None = None
    skills: list[dict[str, Any]] | None = None
    llm_profile_ref: Annotated[str, Field(min_length=1)] | None = None

    def applied(self, agent: AgentDefinition) -> AgentDefinition:
        """The agent with them. A skill of its own wins over one of the same name."""
        context = agent.agent_context or AgentContext()
        texts = [text for text in (context.system_message_suffix, self.system_message_suffix_append) if text]
        own = [skill.get("name") for skill in context.skills]  # what a client sent as a name may be anything
        added = [skill for skill in self.skills or () if skill.get("name") not in own]
        if not added and not self.system_message_suffix_append:
            return agent
        update = {"system_message_suffix": "\n\n".join(texts) or None, "skills": [*context.skills, *added]}
        return agent.model_copy(update={"agent_context": context.model_copy(update=update)})
