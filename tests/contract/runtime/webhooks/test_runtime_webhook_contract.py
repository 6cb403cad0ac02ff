"""Webhooks against the contract's captures: the same requests, headers and bodies, and nothing in an event beside."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from orchestrator.demo.model_server import ScriptedModel
from runtime.events.models import compact, complete, parse
from runtime.webhooks.batch import wire_form
from tests.support.receivers import WebhookReceiver, webhook_receiver
from tests.support.runtimes import KEY, Runtime, runtime_at, terminal

pytestmark = pytest.mark.anyio

SAMPLES = Path(__file__).parent.parent / "samples"
#: ours, which receivers that do not know them ignore
OWN = {"x-nestor-sequence-first", "x-nestor-sequence-last", "x-nestor-log-events"}
#: of any HTTP client
ANY = {"host", "content-length", "user-agent"}


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())


def shape(value: Any) -> Any:
    """Names of fields at every depth, and types; the elements of a list by its first."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with webhook_receiver() as made:
        yield made


@pytest.fixture
async def runtime(tmp_path: Path, receiver: WebhookReceiver) -> AsyncIterator[Runtime]:
    entry = {
        "base_url": f"{receiver.url}/",
        "headers": {"Authorization": "Bearer hook-token"},
        "send_session_key": True,
        "flush_delay": 0.1,
    }
    async with ScriptedModel() as model, runtime_at(tmp_path, model.base_url, webhooks=[entry]) as made:
        yield made


@pytest.fixture
async def id(runtime: Runtime, receiver: WebhookReceiver) -> str:
    secrets = {"TEST_SECRET": {"kind": "LookupSecret", "url": "http://127.0.0.1:8000/api/settings/secrets/TEST_SECRET"}}
    made = await runtime.start([terminal("echo v=$TEST_SECRET"), {"text": "done"}], secrets=secrets)
    assert await runtime.until(made, seconds=90) == "finished"  # the first run imports the model library
    count = len(await runtime.events(made))
    with anyio.fail_after(20):
        while len(receiver.events(made)) < count or "finished" not in receiver.statuses(made):
            await anyio.sleep(0.02)
    return made


def test_captured_events_are_ours_to_the_byte() -> None:
    for captured in sample("11-webhook-events")["body"]:
        event = parse(json.dumps(captured).encode())
        assert json.loads(wire_form(event)) == captured == complete(event)
        assert list(json.loads(wire_form(event))) == list(captured)
        assert wire_form(parse(compact(event))) == wire_form(event)


async def test_a_batch_is_posted_as_captured(receiver: WebhookReceiver, id: str) -> None:
    captured = sample("11-webhook-events")
    batch = receiver.batches(id)[0]
    assert batch.path == captured["path"].rpartition("/")[0] + "/" + id.replace("-", "")
    expected = {name.lower() for name in captured["headers"]}
    assert set(batch.headers) - ANY == expected | OWN
    assert batch.headers["authorization"] == captured["headers"]["Authorization"]
    assert batch.headers["content-type"] == captured["headers"]["Content-Type"]
    assert batch.headers["x-session-api-key"] == KEY
    sent = receiver.events(id)
    for wanted in captured["body"]:
        same = [event for event in sent if event["kind"] == wanted["kind"] and event.get("key") == wanted.get("key")]
        assert [list(event) for event in same] == [list(wanted)] * len(same) != []
        assert shape(same[0]) == shape(wanted)


async def test_a_conversation_is_posted_as_captured(receiver: WebhookReceiver, runtime: Runtime, id: str) -> None:
    captured = sample("11-webhook-conversation")
    post = receiver.states(id)[-1]
    assert post.path == captured["path"]
    expected = {name.lower() for name in captured["headers"]}
    assert set(post.headers) - ANY == expected | {"x-nestor-log-events"}
    assert list(post.body) == list(captured["body"])
    assert post.body["runtime_info"] is None
    assert list(post.body["stats"]["usage_to_metrics"]) == ["agent"]
    shown = (await runtime.http.get(f"/api/conversations/{id}")).json()
    same = set(captured["body"]) - {"runtime_info"}
    assert {name: post.body[name] for name in same} == {name: shown[name] for name in same}
    assert post.body["secret_registry"] == captured["body"]["secret_registry"] or "TEST_SECRET" in json.dumps(
        post.body["secret_registry"]
    )
