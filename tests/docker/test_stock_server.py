"""A stock agent server, the released package, under our orchestrator: provisioned, configured, proxied, talked to."""

from pathlib import Path

import httpx
import pytest
from support import containers
from support.docker_nestor import MODEL_KEY, container_of, nestor_in

pytestmark = [pytest.mark.docker, pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(600)]

IMAGE = "nestor-test-stock"
SECRET = "planted-stock-secret-4715"
TOKEN = "planted-stock-token-4716"


@pytest.fixture(scope="module")
def stock_image() -> str:
    dockerfile = str(containers.REPOSITORY / "tests/docker/Dockerfile.stock")
    containers.docker(
        "build", "--quiet", "--file", dockerfile, "--tag", IMAGE, str(containers.REPOSITORY / "requirements")
    )
    return IMAGE


async def test_one_conversation_with_a_stock_agent_server(folder: Path, stock_image: str):
    async with nestor_in(folder, NESTOR_ALLOWED_IMAGES=stock_image, NESTOR_VERIFY_GIT_TOKENS="0") as nestor:
        key = await nestor.tenant()
        await nestor.call("PUT", "/api/v2/secrets/DEPLOY_KEY", key, json={"value": SECRET}, status=200)
        await nestor.call("PUT", "/api/v2/git-providers/github", key, json={"token": TOKEN}, status=200)
        conversation = await nestor.conversation(key, image=stock_image)
        id, runtime = conversation["id"], conversation["runtime"]

        async with httpx.AsyncClient(
            base_url=runtime["url"], headers={"X-Session-API-Key": runtime["session_key"]}, trust_env=False
        ) as http:
            info = (await http.get("/server_info")).json()
            assert info["title"] == "OpenHands Agent Server"
            settings = (await http.get("/api/settings", headers={"X-Expose-Secrets": "plaintext"})).json()
            assert settings["agent_settings"]["llm"]["api_key"] == MODEL_KEY
            assert (await http.get("/api/settings/secrets/DEPLOY_KEY")).text == SECRET
            assert (await http.get("/api/settings/secrets/github_token")).text == TOKEN
            assert (await http.get("/api/settings", headers={"X-Session-API-Key": "another"})).status_code == 401

        command = "test $DEPLOY_KEY = planted-stock-secret-'4715' && echo the-secret-is-here"
        steps = (
            {"tool": "terminal", "args": {"command": command, "summary": "s", "security_risk": "LOW"}},
            {"tool": "finish", "args": {"message": "done", "summary": "s", "security_risk": "LOW"}},
        )
        events = await nestor.run(key, id, *steps, seconds=120)
        kinds = [event["kind"] for event in events]
        assert kinds.count("ActionEvent") == 2, kinds
        assert any("the-secret-is-here" in str(event.get("observation")) for event in events), events
        assert events[-1].get("value") == "finished" or any(event.get("value") == "finished" for event in events)

        shown = containers.docker("inspect", container_of(id))
        assert SECRET not in shown
        assert TOKEN not in shown
        refused = await nestor.call(
            "POST", "/api/v2/conversations", key, json={"image": stock_image, "repository": "acme/app"}, status=202
        )
        failed = await nestor.until(key, refused["id"], "failed")
        assert (failed["reason"], failed["step"]) == ("config_rejected", "converse")
