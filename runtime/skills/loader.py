"""Finds skills in a project and in the user's home (contract 7.4).

A skill is a Markdown file, perhaps with YAML before it: whole files such as AGENTS.md that are always told, files in
`.openhands/skills` and `.openhands/microagents` with triggers, and folders with a SKILL.md. Nothing is fetched. Files
outside of the folder (through links), too large ones and damaged ones are left out, with a line in the log. Blocking.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import structlog

log = structlog.get_logger()

MOST_BYTES = 256 << 10
MOST_SKILLS = 500
_ALWAYS = ("AGENTS.md", "AGENT.md", "CLAUDE.md", "GEMINI.md", ".cursorrules")
_FOLDERS = (".agents/skills", ".openhands/skills", ".openhands/microagents")
_FENCE = "---"

SkillType = Literal["repo", "knowledge", "agentskills"]


@dataclass(frozen=True)
class Skill:
    """`triggers` empty: always told, unless it is of the agentskills form, which is told by name and description."""

    name: str
    type: SkillType
    content: str
    source: str
    triggers: tuple[str, ...] = ()
    description: str | None = None
    disable_model_invocation: bool = False

    @property
    def shown(self) -> dict[str, Any]:
        """SkillInfo of the wire."""
        return {
            "name": self.name,
            "type": self.type,
            "content": self.content,
            "triggers": list(self.triggers),
            "source": self.source,
            "description": self.description,
            "is_agentskills_format": self.type == "agentskills",
            "disable_model_invocation": self.disable_model_invocation,
        }


def skill_of(given: Mapping[str, Any]) -> Skill | None:
    """A skill as a client sends it with its agent; None for what has no name or text."""
    name, content = given.get("name"), given.get("content")
    if not isinstance(name, str) or not isinstance(content, str) or not name:
        return None
    trigger = given.get("trigger")
    words = trigger.get("keywords") or trigger.get("triggers") if isinstance(trigger, Mapping) else None
    words = words if isinstance(words, list) else ()
    triggers = tuple(one for one in words if isinstance(one, str) and one.strip())
    agentskill = given.get("is_agentskills_format") is True
    kind: SkillType = "agentskills" if agentskill and not triggers else "knowledge" if triggers else "repo"
    description = given.get("description")
    return Skill(
        name=name,
        type=kind,
        content=content,
        source=str(given.get("source") or "the agent's definition"),
        triggers=triggers,
        description=description if isinstance(description, str) else None,
        disable_model_invocation=given.get("disable_model_invocation") is True,
    )


@dataclass
class Found:
    """Skills by name; the first of a name counts."""

    skills: dict[str, Skill] = field(default_factory=dict)

    def add(self, skill: Skill) -> None:
        self.skills.setdefault(skill.name, skill)


def project_skills(root: Path) -> list[Skill]:
    """Those of a project folder, which need not exist."""
    found = Found()
    for name in _ALWAYS:
        if (text := text_below(root / name, root)) is not None and text.strip():
            found.add(Skill(name.removesuffix(".md").lower().lstrip("."), "repo", text, name))
    for folder in _FOLDERS:
        for skill in _below(root / folder, root):
            found.add(skill)
    return list(found.skills.values())[:MOST_SKILLS]


def user_skills(home: Path) -> list[Skill]:
    """Those of the user."""
    found = Found()
    for folder in (".agents/skills", ".openhands/skills"):
        for skill in _below(home / folder, home):
            found.add(skill)
    return list(found.skills.values())[:MOST_SKILLS]


def _below(folder: Path, root: Path) -> Iterator[Skill]:
    if not folder.is_dir():
        return
    for path in sorted(folder.rglob("*.md"))[: 4 * MOST_SKILLS]:
        text = text_below(path, root)
        if text is None or path.name.lower() == "readme.md":
            continue
        # A folder with a SKILL.md is one skill; the other files in it are its material.
        if path.name != "SKILL.md" and any((parent / "SKILL.md").exists() for parent in path.parents if parent != root):
            continue
        try:
            yield _skill(path, text, str(path.relative_to(root)))
        except ValueError as error:
            log.warning("skill.damaged", file=path.name, problem=str(error)[:200])


def _skill(path: Path, text: str, source: str) -> Skill:
    head, content = _split(text)
    agentskill = path.name == "SKILL.md"
    name = head.get("name")
    triggers = head.get("triggers") or ([head["trigger"]] if isinstance(head.get("trigger"), str) else [])
    if not isinstance(triggers, list) or not all(isinstance(one, str) for one in triggers):
        raise ValueError("triggers must be a list of texts")
    description = head.get("description")
    kind: SkillType = "agentskills" if agentskill else "knowledge" if triggers else "repo"
    return Skill(
        name=str(name) if name else (path.parent.name if agentskill else path.stem),
        type=kind,
        content=content,
        source=source,
        triggers=tuple(one.strip() for one in triggers if one.strip()),
        description=description if isinstance(description, str) else None,
        disable_model_invocation=head.get("disable-model-invocation") is True,
    )


def _split(text: str) -> tuple[Mapping[str, Any], str]:
    """The YAML before the text, and the text. Raises ValueError."""
    lines = text.splitlines(keepends=True)
    if not lines or lines[0].strip() != _FENCE:
        return {}, text
    end = next((place for place, line in enumerate(lines[1:], start=1) if line.strip() == _FENCE), None)
    if end is None:
        raise ValueError("the YAML before the text has no end")
    import yaml  # needed for few files, and not at the start

    try:
        head = yaml.safe_load("".join(lines[1:end]))
    except yaml.YAMLError:
        raise ValueError("what stands before the text is no YAML") from None
    if head is not None and not isinstance(head, dict):
        raise ValueError("what stands before the text is no mapping")
    return head or {}, "".join(lines[end + 1 :]).lstrip("\n")


def text_below(path: Path, root: Path) -> str | None:
    """The file's text, when it lies below the root and is not too large."""
    try:
        real = path.resolve()
        if not real.is_file() or root.resolve() not in real.parents:
            return None
        if real.stat().st_size > MOST_BYTES:
            log.warning("skill.too_large", file=path.name)
            return None
        return real.read_text(encoding="utf-8", errors="replace").replace("\0", "")
    except OSError as error:
        log.warning("skill.unreadable", file=path.name, problem=error.strerror)
        return None
