"""A client program without a key: settings and secrets over HTTP, a conversation with a LookupSecret, names refused.

Arguments: server, model URL, model key, working directory. Uses the SDK only for the names of its tools.
"""

import json
import sys
import time
from uuid import UUID

import httpx
from openhands.tools.file_editor import FileEditorTool
from openhands.tools.terminal import TerminalTool

NAME = "MY_PROJECT_TOKEN"


def main() -> None:
    server, model_url, model_key, directory = sys.argv[1:]
    client = httpx.Client(base_url=server, timeout=60, trust_env=False)
    llm = {"model": "openai/scripted", "api_key": model_key, "base_url": model_url, "num_retries": 0}
    assert client.patch("/api/settings", json={"agent_settings_diff": {"llm": llm}}).json()["llm_api_key_is_set"]
    secret = {"name": NAME, "value": "super-secret-token-12345", "description": "for the test"}
    assert client.put("/api/settings/secrets", json=secret).status_code == 200
    listed = client.get("/api/settings/secrets").json()["secrets"]
    script = [{"tool": "terminal", "args": {"command": f'test -n "${NAME}" && echo "${NAME}"'}}, {"text": "YES"}]
    started = client.post(
        "/api/conversations",
        json={
            "agent": {
                "kind": "Agent",
                "llm": llm,
                "tools": [{"name": TerminalTool.name}, {"name": FileEditorTool.name}],
            },
            "workspace": {"working_dir": directory},
            "secrets": {
                NAME: {"kind": "LookupSecret", "url": f"{server}/api/settings/secrets/{NAME}", "description": "x"}
            },
            "initial_message": {
                "role": "user",
                "content": [{"type": "text", "text": f"Echo it. SCRIPT:{json.dumps(script)}"}],
                "run": True,
            },
        },
    )
    assert started.status_code == 201, started.text
    id = UUID(started.json()["id"])
    deadline = time.monotonic() + 60
    while (info := client.get(f"/api/conversations/{id}").json())["execution_status"] not in ("finished", "error"):
        assert time.monotonic() < deadline, info["execution_status"]
        time.sleep(0.1)
    events = client.get(f"/api/conversations/{id}/events/search").json()["items"]
    outputs = [event["observation"]["content"][0]["text"] for event in events if event["kind"] == "ObservationEvent"]
    response = client.get(f"/api/conversations/{id}/agent_final_response").json()["response"]
    cost = sum(item["accumulated_cost"] for item in info["stats"]["usage_to_metrics"].values())
    deleted = client.delete(f"/api/conversations/{id}").status_code
    removed = client.delete(f"/api/settings/secrets/{NAME}").status_code
    missing = client.get(f"/api/settings/secrets/{NAME}").status_code
    bad = [
        client.put("/api/settings/secrets", json={"name": name, "value": "x"}).status_code
        for name in ("123_invalid", "invalid-name")
    ]
    report = {
        "listed": [item["name"] for item in listed],
        "status": info["execution_status"],
        "outputs": outputs,
        "response": response,
        "cost": cost,
        "codes": [deleted, removed, missing, *bad],
    }
    print("REPORT " + json.dumps(report))  # noqa: T201 - the report


main()
