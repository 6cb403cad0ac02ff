"""A dormant runtime: what it refuses, how both sides prove themselves, and how it wakes exactly once."""

import asyncio
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from anyio import to_thread
from pydantic import SecretStr
from support.binding import NONCE, answering, bind, challenge_in

from orchestrator.nested.binding import COMMAND_VARIABLES, NEEDED, OWN_VERSION
from runtime.settings import RuntimeSettings
from tests.support.receivers import webhook_receiver

pytestmark = pytest.mark.anyio
Configure = Callable[..., RuntimeSettings]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
INIT_KEY = SecretStr("one-time-init-key")
KEY = INIT_KEY.get_secret_value()
ASKED = {"X-Init-Nonce": NONCE}


@pytest.fixture
async def dormant(configure: Configure, serve: Serve) -> Any:
    async with serve(configure(session_api_keys=[], secret_key=None), init_key=INIT_KEY, key=None) as client:
        yield client


async def init(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await bind(client, KEY, {"session_api_keys": ["inner"], **body})


async def test_dormant_it_is_alive_but_serves_nothing(dormant: httpx.AsyncClient) -> None:
    assert {(await dormant.get(path)).status_code for path in ("/alive", "/health", "/server_info")} == {200}
    ready = await dormant.get("/ready")
    assert (ready.status_code, ready.json()["status"]) == (503, "dormant")
    for method, path in (("GET", "/api/settings"), ("POST", "/api/conversations"), ("GET", "/api/unknown")):
        answer = await dormant.request(method, path)
        expected = {"detail": "Runtime is dormant: waiting for POST /api/init"}
        assert (answer.status_code, answer.json()) == (503, expected)


async def test_it_writes_nothing_while_dormant(dormant: httpx.AsyncClient, tmp_path: Path) -> None:
    await dormant.get("/ready")
    assert not os.listdir(tmp_path)


async def test_it_proves_that_it_holds_the_init_key(dormant: httpx.AsyncClient) -> None:
    answers = [await dormant.get("/api/init", headers=ASKED) for _ in range(2)]
    told = answers[0].json()
    assert told.keys() == {"state", "error", "proof", "challenge", "nestor"}
    assert set(told["nestor"]["capabilities"]) == NEEDED | {COMMAND_VARIABLES}, (
        "all that the orchestrator of its release needs"
    )
    assert told["nestor"]["version"] == OWN_VERSION
    assert (told["state"], told["error"]) == ("dormant", None)
    assert challenge_in(answers[0], KEY) != challenge_in(answers[1], KEY)
    assert (await dormant.get("/api/init")).json() == {"state": "dormant", "error": None}
    assert (await dormant.get("/api/init", headers={"X-Init-Nonce": "n" * 300})).status_code == 400


async def test_init_configures_and_wakes_it(dormant: httpx.AsyncClient) -> None:
    answer = await init(
        dormant,
        secret_key="sealing",
        generation=4,
        public_urls=["https://runtime.example.org"],
        allow_set_conversation_id=True,
        allow_http_hosts=["git.internal"],
        webhooks=[],
        env=None,
    )
    assert (answer.status_code, answer.json()) == (200, {"state": "ready", "error": None})
    assert (await dormant.get("/ready")).status_code == 200
    keyed = {"X-Session-API-Key": "inner", "X-Generation": "4"}
    assert (await dormant.get("/api/settings", headers=keyed)).status_code == 200
    assert (await dormant.get("/api/settings")).status_code == 401
    assert (await dormant.get("/api/settings", headers={**keyed, "X-Generation": "3"})).status_code == 409
    assert (await dormant.get("/api/init")).json()["state"] == "ready"
    sealed = await dormant.get("/api/settings", headers={**keyed, "X-Expose-Secrets": "encrypted"})
    assert sealed.status_code == 200


async def test_variables_given_at_init_are_the_agents_and_their_credentials_are_hidden(
    dormant: httpx.AsyncClient,
) -> None:
    env = {"HOUSE_TOKEN": "credential-of-the-house", "HOUSE_URL": "http://house.internal"}
    assert (await init(dormant, env=env)).status_code == 200
    keyed = {"X-Session-API-Key": "inner"}
    command = {"command": 'echo "$HOUSE_URL ${#HOUSE_TOKEN} $HOUSE_TOKEN"'}
    done = (await dormant.post("/api/bash/execute_bash_command", headers=keyed, json=command)).json()
    assert done["stdout"] == "http://house.internal 23 <secret-hidden>\n"
    assert not {"HOUSE_TOKEN", "HOUSE_URL"} & set(os.environ), "the server itself does not get them"


async def test_what_callers_commands_are_given_is_hidden_and_opens_the_server(dormant: httpx.AsyncClient) -> None:
    own = "session-key-of-the-sandbox"
    given = {"session_api_keys": ["inner", own], "command_env": {"SESSION_API_KEY": own}, "env": {"SANDBOX_ID": "box"}}
    assert (await init(dormant, **given)).status_code == 200
    command = {"command": 'echo "$SANDBOX_ID ${#SESSION_API_KEY} $SESSION_API_KEY"'}
    for key in ("inner", own):
        keyed = {"X-Session-API-Key": key}
        done = (await dormant.post("/api/bash/execute_bash_command", headers=keyed, json=command)).json()
        assert done["stdout"] == f"box {len(own)} <secret-hidden>\n"


async def test_init_names_the_orchestrators_receiver(dormant: httpx.AsyncClient, tmp_path: Path) -> None:
    with webhook_receiver() as receiver:
        entry = {"base_url": receiver.url, "name": "orchestrator", "send_session_key": True, "flush_delay": 0.1}
        answer = await init(dormant, generation=4, webhooks=[entry])
        assert answer.status_code == 200, answer.text
        keyed = {"X-Session-API-Key": "inner", "X-Generation": "4"}
        body = {"agent": {"llm": {"model": "m"}}, "workspace": {"working_dir": str(tmp_path / "work")}}
        assert (await dormant.post("/api/conversations", headers=keyed, json=body)).status_code == 201
        await to_thread.run_sync(lambda: receiver.wait(lambda made: made.states()))
        post = receiver.states()[0]
        with anyio.fail_after(20):  # how far it came is written down when the receiver has answered
            while not list(tmp_path.glob("conversations/*/webhook-orchestrator")):
                await anyio.sleep(0.01)
    assert post.headers["x-session-api-key"] == "inner"
    assert post.headers["x-nestor-generation"] == "4"


@pytest.mark.parametrize("headers", [{}, {"X-Init-API-Key": KEY}, {"X-Session-API-Key": KEY}, {"X-Init-Proof": KEY}])
async def test_no_proof_or_a_wrong_one_is_401_and_changes_nothing(
    dormant: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    await dormant.get("/api/init", headers=ASKED)
    answer = await dormant.post("/api/init", headers=headers, json={"session_api_keys": ["inner"]})
    assert answer.status_code == 401
    assert answer.json()["detail"].startswith("Unauthorized: X-Init-Proof is ")
    assert KEY not in answer.text
    assert (await dormant.get("/api/init")).json()["state"] == "dormant"


async def test_a_proof_is_for_one_body_one_challenge_and_one_side(dormant: httpx.AsyncClient) -> None:
    def post(challenge: str) -> Any:
        return answering(KEY, challenge, {"session_api_keys": ["inner"]})

    first = await dormant.get("/api/init", headers=ASKED)
    right = post(challenge_in(first, KEY))
    other = await dormant.post("/api/init", headers=right.headers, json={"session_api_keys": ["thief"]})
    assert other.status_code == 401
    again = await dormant.post("/api/init", headers=right.headers, content=right.content)
    assert again.status_code == 409, "the wrong answer used the challenge up"
    assert "GET /api/init" in again.json()["detail"]
    older = await dormant.get("/api/init", headers=ASKED)
    newer = await dormant.get("/api/init", headers=ASKED)
    stale = post(challenge_in(older, KEY))
    assert (await dormant.post("/api/init", headers=stale.headers, content=stale.content)).status_code == 401
    newer = await dormant.get("/api/init", headers=ASKED)
    echoed = {**right.headers, "X-Init-Proof": newer.json()["proof"]}
    assert (await dormant.post("/api/init", headers=echoed, content=right.content)).status_code == 401
    assert (await dormant.get("/api/init")).json()["state"] == "dormant"


async def test_a_late_holder_cannot_initialise_what_a_later_one_has_used(
    configure: Configure, serve: Serve, tmp_path: Path
) -> None:
    """Its fence is below the one on the volume, and stays so over every restart."""
    body = {"session_api_keys": ["inner"], "generation": 5}

    async def posted(client: httpx.AsyncClient, fence: str) -> httpx.Response:
        post = answering(KEY, challenge_in(await client.get("/api/init", headers=ASKED), KEY), body)
        return await client.post("/api/init", headers={**post.headers, "X-Fence": fence}, content=post.content)

    async with serve(configure(session_api_keys=[]), init_key=INIT_KEY, key=None) as client:
        assert (await posted(client, "many")).status_code == 400
        assert (await posted(client, "7")).status_code == 200
        late = {"X-Session-API-Key": "inner", "X-Fence": "6"}
        assert (await client.get("/api/settings", headers=late)).status_code == 409
    async with serve(configure(session_api_keys=[]), init_key=INIT_KEY, key=None) as client:
        refused = await posted(client, "6")
        assert (refused.status_code, refused.json()["fence"]) == (409, 7)
        assert (await client.get("/api/init")).json() == {"state": "dormant", "error": None}
        assert (await posted(client, "7")).status_code == 200


async def test_a_second_init_is_400_and_the_init_key_is_forgotten(dormant: httpx.AsyncClient) -> None:
    await init(dormant)
    assert (await dormant.post("/api/init", json={"session_api_keys": ["thief"]})).status_code == 400
    assert (await dormant.get("/api/settings", headers={"X-Session-API-Key": "thief"})).status_code == 401
    assert (await dormant.get("/api/init", headers={"X-Init-Nonce": "n"})).json()["proof"] is None


async def test_of_two_inits_at_once_one_wins(dormant: httpx.AsyncClient) -> None:
    challenge = challenge_in(await dormant.get("/api/init", headers=ASKED), KEY)
    posts = [answering(KEY, challenge, {"session_api_keys": [f"key-{n}"]}) for n in range(4)]
    answers = await asyncio.gather(
        *(dormant.post("/api/init", headers=post.headers, content=post.content) for post in posts)
    )
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses[0] == 200
    assert set(statuses[1:]) <= {400, 409}


@pytest.mark.parametrize(
    "body",
    [
        {"unknown": 1},
        {"session_api_keys": []},
        {"session_api_keys": ["  "]},
        {"session_api_keys": "hidden-value"},
        {"session_api_keys": ["k"], "env": {"A B": "hidden-value"}},
        {"session_api_keys": ["k"], "env": {"OH_SECRET_KEY": "hidden-value"}},
        {"session_api_keys": ["k"], "env": {"A": {"hidden-value": 1}}},
        {"session_api_keys": ["k"], "env": {"A": "hidden-value\0"}},
        {"session_api_keys": ["k"], "env": {"SESSION_API_KEY": "hidden-value"}},
        {"session_api_keys": ["k"], "command_env": {"OH_SECRET_KEY": "hidden-value"}},
        {"session_api_keys": ["k"], "webhooks": [{"base_url": "hidden-value"}]},
        {"session_api_keys": ["k"], "webhooks": [{"base_url": "http://x/", "headers": {"A": "hidden-value\n"}}]},
        {"session_api_keys": ["k"], "webhooks": [{"base_url": "http://x/", "more": "hidden-value"}]},
        {"session_api_keys": ["k"], "webhooks": [{"base_url": "http://x/"}, {"base_url": "http://x"}]},
        {"session_api_keys": ["k"], "max_concurrent_runs": 0},
        {"session_api_keys": ["k"], "generation": "hidden-value"},
    ],
)
async def test_a_bad_init_body_is_422_without_its_values(dormant: httpx.AsyncClient, body: dict[str, Any]) -> None:
    answer = await bind(dormant, KEY, body)
    assert answer.status_code == 422
    assert "hidden-value" not in answer.text
    assert (await dormant.get("/api/init")).json()["state"] == "dormant"


@pytest.mark.parametrize("folder", ["persistence", "conversations"])
async def test_a_failed_init_is_500_and_can_be_repeated(
    configure: Configure, serve: Serve, tmp_path: Path, folder: str
) -> None:
    blocked = tmp_path / folder
    blocked.write_text("a file where a directory must be")
    async with serve(configure(session_api_keys=[]), init_key=INIT_KEY, key=None) as client:
        answer = await init(client)
        assert (answer.status_code, answer.json()["detail"]) == (500, "Internal Server Error")
        status = (await client.get("/api/init")).json()
        assert status["state"] == "dormant"
        assert answer.json()["error_id"] in status["error"]
        assert folder not in answer.text + status["error"]
        blocked.unlink()
        assert (await init(client)).status_code == 200


async def test_a_runtime_that_is_not_deferred_has_no_init(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/init")).status_code == 404
    assert (await client.post("/api/init", json={"session_api_keys": ["inner"]})).status_code == 400


async def test_deferred_init_by_environment_takes_the_secret_key_as_init_key(
    configure: Configure, serve: Serve
) -> None:
    settings = configure(session_api_keys=[], deferred_init=True, secret_key=INIT_KEY.get_secret_value())
    async with serve(settings, key=None) as client:
        assert (await client.get("/api/settings")).status_code == 503
        body = {"session_api_keys": ["inner"]}
        assert (await client.post("/api/init", headers={"X-Init-API-Key": "wrong"}, json=body)).status_code == 401
        assert (await client.post("/api/init", headers={"X-Init-API-Key": KEY}, json=body)).status_code == 200


async def test_deferred_init_can_be_proved_as_well(configure: Configure, serve: Serve) -> None:
    settings = configure(session_api_keys=[], deferred_init=True, secret_key=KEY)
    async with serve(settings, key=None) as client:
        assert (await init(client)).status_code == 200
