"""Which tools a conversation's agent gets, made from its definition. The composition of `runtime.agent.tools`."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.agent.tools.base import Tool, Toolbox
from runtime.agent.tools.basic import FinishTool, TaskTrackerTool, ThinkTool
from runtime.agent.tools.client import ClientTool, ClientToolSpec
from runtime.agent.tools.file_editor import FileEditorTool
from runtime.agent.tools.mcp import McpServers
from runtime.agent.tools.terminal import CommandSecrets, TerminalTool
from runtime.conversations.definition import AgentDefinition
from runtime.events.actions import TaskItem
from runtime.machine import account

KNOWN_TOOLS = ("terminal", "file_editor", "task_tracker")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def unknown_tools(agent: AgentDefinition) -> list[str]:
    """Tools of the definition that this runtime does not have."""
    return [choice.name for choice in agent.tools if choice.name not in KNOWN_TOOLS]


def toolbox_for(
    agent: AgentDefinition,
    *,
    directory: Path,
    environment: Mapping[str, str],
    secrets: CommandSecrets,
    output_directory: Path,
    tasks: Callable[[], Sequence[TaskItem] | None],
    client_tools: Sequence[Mapping[str, Any]] = (),
) -> Toolbox:
    """The agent's tools, without those that are unknown. Nothing is started yet. `tasks` reads the list of tasks that
    the log has; None for none."""
    tools: list[Tool] = []
    for name in dict.fromkeys(choice.name for choice in agent.tools):
        match name:
            case "terminal":
                tools.append(
                    TerminalTool(
                        directory=directory,
                        environment=environment,
                        secrets=secrets,
                        output_directory=output_directory,
                    )
                )
            case "file_editor":
                tools.append(FileEditorTool())
            case "task_tracker":
                tools.append(TaskTrackerTool(tasks))
    defaults: dict[str, Tool] = {"FinishTool": FinishTool(), "ThinkTool": ThinkTool()}
    tools += [defaults[name] for name in agent.include_default_tools if name in defaults]
    tools += [ClientTool(ClientToolSpec.model_validate(spec)) for spec in client_tools]
    servers = McpServers(
        agent.mcp_config,
        environment=environment,
        pattern=agent.filter_tools_regex,
    )
    return Toolbox(tools, servers=servers if servers else None)


def shell_environment() -> dict[str, str]:
    """What a process of the agent starts with: nothing of the server's own environment."""
    chosen = account.chosen()
    name = chosen.name if chosen is not None else pwd.getpwuid(os.getuid()).pw_name
    return {
        **_proxies(),
        "PATH": _PATH,
        "HOME": str(account.home()),  # the server's own: what the account file says may not exist in a container
        "USER": name,
        "LOGNAME": name,
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "PAGER": "cat",
        "GIT_PAGER": "cat",
    }


def _proxies() -> dict[str, str]:
    """Where a forward proxy is the way out, commands need it as much as the server. One with a password in its address
    is the server's alone."""
    found = {name: os.environ.get(name, "") for name in (*_PROXIES, *map(str.lower, _PROXIES))}
    return {name: value for name, value in found.items() if value and "@" not in value}
