"""A client program of the public SDK: configure by HTTP, take the model from the workspace, hold a conversation.

Run by the environment of `scripts/install --sdk`, not by pytest. Arguments: server, session key, model URL, model key,
working directory. Prints one line of JSON about what it saw.
"""

import json
import sys

import httpx
from openhands.sdk import Conversation
from openhands.sdk.workspace.remote.base import RemoteWorkspace
from openhands.tools.preset.default import get_default_agent


def main() -> None:
    server, key, model_url, model_key, directory = sys.argv[1:]
    client = httpx.Client(base_url=server, timeout=60, headers={"X-Session-API-Key": key}, trust_env=False)
    refused = httpx.get(f"{server}/api/settings", trust_env=False).status_code
    llm_settings = {"model": "openai/gpt-4o-mini", "api_key": model_key, "base_url": model_url, "num_retries": 0}
    stored = client.patch("/api/settings", json={"agent_settings_diff": {"llm": llm_settings}})
    stored.raise_for_status()

    workspace = RemoteWorkspace(host=server, working_dir=directory, api_key=key)
    llm = workspace.get_llm()
    assert llm.api_key is not None
    agent = get_default_agent(llm=llm, cli_mode=True)
    seen: list[str] = []
    conversation = Conversation(
        agent=agent, workspace=workspace, callbacks=[lambda event: seen.append(type(event).__name__)]
    )
    try:
        created = client.put("/api/settings/secrets", json={"name": "TEST_SECRET", "value": "value-of-the-test-secret"})
        created.raise_for_status()
        secrets = workspace.get_secrets()
        conversation.update_secrets(secrets)
        script = [
            {
                "text": "looking",
                "tool": "terminal",
                "args": {"command": 'echo "$TEST_SECRET" | wc -c', "summary": "count"},
            },
            {"tool": "file_editor", "args": {"command": "create", "path": f"{directory}/a.txt", "file_text": "one\n"}},
            {"tool": "file_editor", "args": {"command": "view", "path": f"{directory}/a.txt"}},
            {"tool": "task_tracker", "args": {"command": "plan", "task_list": [{"title": "a"}]}},
            {"tool": "terminal", "args": {"bogus": 1}},
            {"tool": "think", "args": {"thought": "hm"}},
            {"tool": "finish", "args": {"message": "It is 4."}},
        ]
        conversation.send_message(f"What is 2 + 2? SCRIPT:{json.dumps(script)}")
        conversation.run()
        status = conversation.state.execution_status.value
        metrics = conversation.conversation_stats.get_combined_metrics()
        kinds = [type(event).__name__ for event in conversation.state.events]
        conversation.send_message('And again? SCRIPT:[{"text": "Still 4."}]')
        conversation.run()
        again = conversation.state.execution_status.value
        failed = ""
        conversation.send_message('SCRIPT:[{"status": 400, "error": "scripted failure"}]')
        try:
            conversation.run()
        except Exception as error:  # noqa: BLE001 - the report says which one
            failed = f"{type(error).__name__}: {error}"
        id = str(conversation.state.id)
    finally:
        conversation.close()
    client.delete("/api/settings/secrets/TEST_SECRET").raise_for_status()
    report = {
        "refused": refused,
        "key_is_set": stored.json()["llm_api_key_is_set"],
        "model": llm.model,
        "key_matches": llm.api_key.get_secret_value() == model_key,
        "status": status,
        "again": again,
        "failed": failed,
        "kinds": kinds,
        "called_back": seen,
        "cost": metrics.accumulated_cost,
        "prompt_tokens": metrics.accumulated_token_usage.prompt_tokens,
        "secrets": {
            name: {"url": secret.url, "has_key": "X-Session-API-Key" in secret.headers}
            for name, secret in secrets.items()
        },
        "mcp": workspace.get_mcp_config(),
        "after_close": client.get(f"/api/conversations/{id}").status_code,
    }
    print("REPORT " + json.dumps(report))  # noqa: T201 - the report


main()
