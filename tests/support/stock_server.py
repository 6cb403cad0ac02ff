"""What a conversation with a stock agent server does under our orchestrator, whoever runs it and however it starts.

`settings` of the orchestrator, and the image that is asked for, are the tests' own; they look at the engine or at the
process afterwards.
"""

from typing import Any

import anyio
import httpx

from support.docker_nestor import MODEL_KEY, Client

SECRET = "planted-stock-secret-4715"
TOKEN = "planted-stock-token-4716"
TITLE = "OpenHands Agent Server"


async def configured(nestor: Client) -> str:
    """The key of a tenant with a model, a secret and a git provider."""
    key = await nestor.tenant()
    await nestor.call("PUT", "/api/v2/secrets/DEPLOY_KEY", key, json={"value": SECRET}, status=200)
    await nestor.call("PUT", "/api/v2/git-providers/github", key, json={"token": TOKEN}, status=200)
    return key


async def holds_what_it_was_told(runtime: dict[str, Any]) -> None:
    """Settings, secret and token are in it, for whoever has the session key and nobody else."""
    async with httpx.AsyncClient(
        base_url=runtime["url"], headers={"X-Session-API-Key": runtime["session_key"]}, trust_env=False
    ) as http:
        assert (await http.get("/server_info")).json()["title"] == TITLE
        settings = (await http.get("/api/settings", headers={"X-Expose-Secrets": "plaintext"})).json()
        assert settings["agent_settings"]["llm"]["api_key"] == MODEL_KEY
        assert (await http.get("/api/settings/secrets/DEPLOY_KEY")).text == SECRET
        assert (await http.get("/api/settings/secrets/github_token")).text == TOKEN
        assert (await http.get("/api/settings", headers={"X-Session-API-Key": "another"})).status_code == 401


async def plays_a_turn(nestor: Client, key: str, id: str) -> None:
    """A message, to the end: a command that has the secret, and what it printed among the events."""
    command = f"test $DEPLOY_KEY = {SECRET[:-4]}'{SECRET[-4:]}' && echo the-secret-is-here"
    steps = (
        {"tool": "terminal", "args": {"command": command, "summary": "s", "security_risk": "LOW"}},
        {"tool": "finish", "args": {"message": "done", "summary": "s", "security_risk": "LOW"}},
    )
    before = len(await nestor.events(key, id))
    events = (await nestor.run(key, id, *steps, seconds=120))[before:]
    kinds = [event["kind"] for event in events]
    assert kinds.count("ActionEvent") == 2, kinds
    assert any("the-secret-is-here" in str(event.get("observation")) for event in events), events
    assert any(event.get("value") == "finished" for event in events)


async def pauses_and_goes_on(nestor: Client, key: str, id: str) -> None:
    await nestor.call("POST", f"/api/v2/conversations/{id}/pause", key, json={}, status=202)
    await nestor.until(key, id, "paused", past="ready")
    await nestor.call("POST", f"/api/v2/conversations/{id}/resume", key, json={}, status=202)
    resumed = await nestor.until(key, id, "ready", past="paused")
    await holds_what_it_was_told(resumed["runtime"])


async def gets_back_what_a_client_took(nestor: Client, key: str, id: str) -> None:
    """A secret that is deleted there, and another model, are seen and pushed again; the orchestrator looks often."""
    path = f"/api/v2/conversations/{id}"
    record = await nestor.call("GET", path, key, status=200)
    assert (record["configuration"]["compared"], record["configuration"]["drift"]) == ("names", None)
    runtime = record["runtime"]
    async with httpx.AsyncClient(
        base_url=runtime["url"], headers={"X-Session-API-Key": runtime["session_key"]}, trust_env=False
    ) as http:
        assert (await http.delete("/api/settings/secrets/DEPLOY_KEY")).status_code == 200
        model = {"agent_settings_diff": {"llm": {"model": "openai/another"}}}
        assert (await http.patch("/api/settings", json=model)).status_code == 200
        with anyio.fail_after(40):
            while (found := (await nestor.call("GET", path, key, status=200))["configuration"])["drift"] is None:
                await anyio.sleep(0.2)
            while not found["current"]:
                await anyio.sleep(0.2)
                found = (await nestor.call("GET", path, key, status=200))["configuration"]
        assert (await http.get("/api/settings")).json()["agent_settings"]["llm"]["model"] != "openai/another"
    await holds_what_it_was_told(runtime)


async def is_deleted(nestor: Client, key: str, id: str) -> None:
    await nestor.call("DELETE", f"/api/v2/conversations/{id}?purge=true", key, status=202)
    await nestor.gone(key, id)
