"""Which skills the agent is told of, and when. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from runtime.skills.loader import Skill


def always(skills: Sequence[Skill]) -> str | None:
    """What stands in the prompt: every text without a trigger, and the names of what can be read when it is needed."""
    parts = [f"From {skill.source}:\n\n{skill.content.strip()}" for skill in skills if _is_always(skill)]
    offered = [skill for skill in skills if skill.type == "agentskills" and not skill.disable_model_invocation]
    if offered:
        lines = [f"- {skill.name} ({skill.source}): {skill.description or 'no description'}" for skill in offered]
        parts.append("These skills can be read when a task needs them; read the file first:\n" + "\n".join(lines))
    return "\n\n".join(parts) or None


def triggered(skills: Sequence[Skill], text: str, *, known: Sequence[str]) -> list[Skill]:
    """Those that a message calls for by a word of theirs, without those that were told before."""
    return [skill for skill in skills if skill.name not in known and _calls(skill, text)]


def _is_always(skill: Skill) -> bool:
    return skill.type == "repo" and not skill.triggers


def _calls(skill: Skill, text: str) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in skill.triggers)
