#!/usr/bin/env python3
"""What a SaaS backend does with Nestor, in plain HTTP. Needs only httpx; read it from top to bottom.

    python examples/saas_backend.py --task "Write a haiku about queues into haiku.txt"

Told by options or by the environment:

    NESTOR_URL             where Nestor listens (default http://127.0.0.1:8080)
    NESTOR_OPERATOR_KEY    makes a tenant, a user and a key first; or
    NESTOR_TENANT_ID, NESTOR_TENANT_KEY     a tenant that exists (a user is made in it)
    LLM_MODEL, LLM_API_KEY, LLM_BASE_URL    the model that the agent uses
    GIT_HOST, GIT_TOKEN    optional: a git host and the user's token for it
"""

import argparse
import os
import sys
import time
import uuid
from typing import Any

import httpx


def main() -> int:
    options = read_options()
    with httpx.Client(base_url=options.url, timeout=60) as http:
        tenant_id, tenant_key = options.tenant_id, options.tenant_key
        if not tenant_key:
            tenant_id, tenant_key = make_tenant(http, options.operator_key)

        # A tenant's key acts for one of its users: settings, secrets and conversations are then that user's own.
        tenant = {"Authorization": f"Bearer {tenant_key}"}
        user = check(http.post(f"/api/v2/tenants/{tenant_id}/users", json={"name": "Ada"}, headers=tenant))
        headers = tenant | {"X-Act-As-User": user["id"]}

        store_configuration(http, headers, options)
        conversation = start_conversation(http, headers, options.task)
        try:
            ended, cursor = follow_run(http, headers, conversation["id"], after=0)
            print("the agent:", final_answer(conversation))

            again = {"content": options.second_task, "client_id": "second-task"}
            check(http.post(f"/api/v2/conversations/{conversation['id']}/messages", json=again, headers=headers))
            ended_again, _ = follow_run(http, headers, conversation["id"], after=cursor)
            print("the agent:", final_answer(conversation))
        finally:
            delete_conversation(http, headers, conversation["id"])
    return 0 if ended == ended_again == "finished" else 1


def make_tenant(http: httpx.Client, operator_key: str) -> tuple[str, str]:
    """A tenant for this product's customer, and the key that the product will use from then on."""
    operator = {"Authorization": f"Bearer {operator_key}"}
    tenant = check(http.post("/api/v2/tenants", json={"name": "Example Ltd"}, headers=operator))
    key = check(http.post(f"/api/v2/tenants/{tenant['id']}/api-keys", json={"name": "backend"}, headers=operator))
    return tenant["id"], key["key"]  # the key is shown once: keep it


def store_configuration(http: httpx.Client, headers: dict[str, str], options: argparse.Namespace) -> None:
    """What every conversation of this user starts with. Values go in and never come out again."""
    llm = {"model": options.model, "api_key": options.model_key}
    if options.base_url:
        llm["base_url"] = options.base_url
    check(http.patch("/api/v2/settings", json={"agent_settings": {"llm": llm}}, headers=headers))

    secret = {"value": uuid.uuid4().hex, "description": "for deployments"}
    check(http.put("/api/v2/secrets/DEPLOY_KEY", json=secret, headers=headers))

    if options.git_token:
        provider = {"token": options.git_token, "host": options.git_host}
        check(http.put("/api/v2/git-providers/github", json=provider, headers=headers))


def start_conversation(http: httpx.Client, headers: dict[str, str], task: str) -> dict[str, Any]:
    """Create it and wait until its runtime is ready. The key makes a repeated request harmless."""
    once = headers | {"Idempotency-Key": str(uuid.uuid4())}
    body = {"initial_message": task, "labels": {"ticket": "42"}}
    conversation = check(http.post("/api/v2/conversations", json=body, headers=once))
    while conversation["status"] == "starting":
        time.sleep(0.3)
        conversation = check(http.get(f"/api/v2/conversations/{conversation['id']}", headers=headers))
    if conversation["status"] != "running":
        raise SystemExit(f"the start failed: {conversation.get('reason')} {conversation.get('message')}")
    return conversation


def follow_run(http: httpx.Client, headers: dict[str, str], conversation: str, after: int) -> tuple[str, int]:
    """Read events as they come until the agent's run ends; answers how it ended, and the cursor to go on from."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        query = {"after": after, "limit": 100}
        page = check(http.get(f"/api/v2/conversations/{conversation}/events", params=query, headers=headers))
        for item in page["items"]:
            after, event = item["sequence"], item["event"]
            if event["kind"] == "ActionEvent":
                print(f"{after:4} {event['tool_name']}: {event.get('summary') or ''}")
            if event.get("key") == "execution_status" and event["value"] in ("finished", "error", "stuck", "paused"):
                return event["value"], after
        if not page["items"]:
            time.sleep(0.3)
    raise SystemExit("the agent was not done after ten minutes")


def final_answer(conversation: dict[str, Any]) -> str:
    """The runtime's own API is open to whoever holds its session key: here, what the agent said last."""
    runtime = conversation["runtime"]
    url = f"{runtime['url']}/api/conversations/{conversation['id']}/agent_final_response"
    answer = httpx.get(url, headers={"X-Session-API-Key": runtime["session_key"]}, timeout=60)
    return str(check(answer)["response"])


def delete_conversation(http: httpx.Client, headers: dict[str, str], conversation: str) -> None:
    """At once and for good (without `purge` it could be brought back for ten minutes): 202 until all of it is gone."""
    for _ in range(200):
        answer = http.delete(f"/api/v2/conversations/{conversation}?purge=true", headers=headers)
        if answer.status_code in (204, 404, 410):
            print("deleted")
            return
        time.sleep(0.3)
    raise SystemExit(f"conversation {conversation} was not deleted in a minute")


def check(answer: httpx.Response) -> dict[str, Any]:
    """The body of a good answer; otherwise stop with what the answer says: every error names its fix."""
    if answer.is_success:
        return answer.json() if answer.content else {}
    raise SystemExit(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    env = os.environ.get
    parser.add_argument("--url", default=env("NESTOR_URL", "http://127.0.0.1:8080"))
    parser.add_argument("--operator-key", default=env("NESTOR_OPERATOR_KEY"))
    parser.add_argument("--tenant-id", default=env("NESTOR_TENANT_ID"))
    parser.add_argument("--tenant-key", default=env("NESTOR_TENANT_KEY"))
    parser.add_argument("--model", default=env("LLM_MODEL"))
    parser.add_argument("--model-key", default=env("LLM_API_KEY"))
    parser.add_argument("--base-url", default=env("LLM_BASE_URL"))
    parser.add_argument("--git-host", default=env("GIT_HOST"))
    parser.add_argument("--git-token", default=env("GIT_TOKEN"))
    parser.add_argument("--task", required=True)
    parser.add_argument("--second-task", default="Thank you. Say in one sentence what you did.")
    options = parser.parse_args()
    if not (options.operator_key or (options.tenant_id and options.tenant_key)):
        parser.error("set NESTOR_OPERATOR_KEY, or both NESTOR_TENANT_ID and NESTOR_TENANT_KEY")
    if not (options.model and options.model_key):
        parser.error("set LLM_MODEL and LLM_API_KEY")
    return options


if __name__ == "__main__":
    sys.exit(main())
