"""A client program of the public SDK: the remote workspace, and everything that steers a conversation.

Run by the environment of `scripts/install --sdk`, not by pytest. Arguments: server, session key, model URL, model key,
working directory (a git repository), a scratch folder. Prints one line of JSON about what it saw.
"""

import json
import sys
import threading
import time
from pathlib import Path

from openhands.sdk import LLM, Conversation
from openhands.sdk.context.condenser import LLMSummarizingCondenser
from openhands.sdk.security.confirmation_policy import AlwaysConfirm, NeverConfirm
from openhands.sdk.tool.client_tool import ClientToolSpec
from openhands.sdk.workspace.remote.base import RemoteWorkspace
from openhands.tools.preset.default import get_default_agent


def script(*steps: object) -> str:
    return f"SCRIPT:{json.dumps(list(steps))}"


def terminal(command: str) -> dict[str, object]:
    return {"tool": "terminal", "args": {"command": command}}


def of_workspace(workspace: RemoteWorkspace, directory: str, scratch: Path) -> dict[str, object]:
    done = workspace.execute_command("echo out; echo err >&2; exit 3", cwd=directory)
    late = workspace.execute_command("sleep 30", timeout=1)
    (scratch / "up").write_text("from the client")
    up = workspace.file_upload(scratch / "up", f"{directory}/sub/up.txt")
    down = workspace.file_download(f"{directory}/sub/up.txt", scratch / "down")
    context = workspace.load_skills_from_agent_server(project_dirs=[directory], load_user=False)
    skills = context[0] if isinstance(context, tuple) else context
    return {
        "command": [done.exit_code, done.stdout, done.stderr],
        "late": [late.exit_code, late.timeout_occurred],
        "files": [up.success, down.success, (scratch / "down").read_text()],
        "changes": sorted([change.status.value, str(change.path)] for change in workspace.git_changes(directory)),
        "diff": [workspace.git_diff(f"{directory}/a").original, workspace.git_diff(f"{directory}/a").modified],
        "skills": sorted(skill.name for skill in getattr(skills, "skills", skills)),
    }


def until(condition: object, seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def main() -> None:
    server, key, model_url, model_key, directory, scratch = sys.argv[1:]
    workspace = RemoteWorkspace(host=server, working_dir=directory, api_key=key)
    report: dict[str, object] = {"workspace": of_workspace(workspace, directory, Path(scratch))}
    llm = LLM(model="openai/gpt-4o-mini", api_key=model_key, base_url=model_url, num_retries=0, usage_id="agent")
    agent = get_default_agent(llm=llm, cli_mode=True)
    agent = agent.model_copy(update={"condenser": LLMSummarizingCondenser(llm=llm, max_size=40, keep_first=1)})
    ask = ClientToolSpec(
        name="ask_user",
        description="Ask.",
        parameters={"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]},
    )
    seen: list[str] = []
    conversation = Conversation(
        agent=agent,
        workspace=workspace,
        client_tools=[ask],
        callbacks=[lambda event: seen.append(type(event).__name__)],
        delete_on_close=False,
    )

    def status() -> str:
        return conversation.state.execution_status.value

    conversation.send_message(script({"tool": "ask_user", "args": {"q": "hi?"}}, {"text": "asked"}))
    conversation.run()
    report["client_tool"] = [status(), "ObservationEvent" in seen]

    conversation.set_confirmation_policy(AlwaysConfirm())
    # The client listens for the end of a run a moment after it has begun one, and of one that waits for leave it asks
    # nobody else: a model that answers before that moment would leave it waiting.
    conversation.send_message(script(terminal("touch rejected") | {"sleep": 2}, {"text": "as you wish"}))
    conversation.run()
    waited = status()
    conversation.reject_pending_actions("no")
    until(lambda: status() == "idle")
    conversation.run()
    rejected = status()
    conversation.send_message(script(terminal("touch accepted") | {"sleep": 2}, {"text": "done"}))
    conversation.run()
    conversation.run()
    report["confirmation"] = [waited, rejected, status()]
    conversation.set_confirmation_policy(NeverConfirm())

    conversation.send_message(script(terminal("sleep 100"), {"text": "never"}))
    runner = threading.Thread(target=conversation.run)
    runner.start()
    before = len(seen)
    until(lambda: "ActionEvent" in seen[before:])
    conversation.interrupt()
    runner.join(60)
    report["interrupt"] = [status(), runner.is_alive()]

    conversation.send_message(script({"text": "slow", "sleep": 3}))
    runner = threading.Thread(target=conversation.run)
    runner.start()
    until(lambda: status() == "running")
    conversation.pause()
    runner.join(60)
    report["pause"] = [status(), runner.is_alive()]
    conversation.run()
    report["resumed"] = status()

    report["answer"] = bool(conversation.ask_agent("What did you do?"))
    conversation.condense()
    copy = conversation.fork(title="a copy", tags={"kind": "copy"})
    copy.send_message(script({"text": "in the copy"}))
    copy.run()
    report["fork"] = [copy.id != conversation.id, copy.state.execution_status.value]
    stats = conversation.conversation_stats.usage_to_metrics
    report["usages"] = sorted(stats)
    report["kinds"] = sorted({type(event).__name__ for event in conversation.state.events})
    report["id"] = str(conversation.id)
    copy.close()
    conversation.close()
    print("REPORT", json.dumps(report))  # noqa: T201


if __name__ == "__main__":
    main()
