"""Calls of the model that go wrong and come right, what they cost, and answers that no event can hold."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from structlog.testing import capture_logs

from orchestrator.demo.loopback import serving
from orchestrator.demo.model_server import ScriptedModel
from runtime.agent.llm import Model
from runtime.configuration.record import LlmSettings
from tests.support.runtimes import Runtime, runtime_at, terminal

pytestmark = pytest.mark.anyio

QUICK = {"num_retries": 3, "retry_min_wait": 0, "retry_max_wait": 0, "retry_multiplier": 0}


async def finish(runtime: Runtime, id: str) -> None:
    status = await runtime.until(id, seconds=90)  # the first run imports the model library
    assert status == "finished", await runtime.events(id, "ConversationErrorEvent")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_what_may_pass_is_asked_again_and_the_run_goes_on(
    runtime: Runtime, model: ScriptedModel, status: int, stream: bool
) -> None:
    script = [{"status": status, "error": "x", "times": 2, **terminal("echo came right")}, {"text": "done"}]
    with capture_logs() as lines:
        id = await runtime.start(script, llm={**QUICK, "stream": stream})
        await finish(runtime, id)
    assert await runtime.outputs(id) == ["came right"]
    assert len(model.requests) == 4
    assert [line["attempt"] for line in lines if line["event"] == "model.retry"] == [1, 2]
    assert await runtime.events(id, "ConversationErrorEvent") == []


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "LLMBadRequestError"),
        (401, "LLMAuthenticationError"),
        (402, "LLMRateLimitError"),
        (403, "LLMAuthenticationError"),
        (404, "LLMBadRequestError"),
        (405, "LLMBadRequestError"),
        (413, "LLMContextWindowExceedError"),
        (451, "LLMBadRequestError"),
    ],
)
async def test_what_will_not_pass_is_asked_once(tmp_path: Path, status: int, code: str) -> None:
    asked = 0

    async def answer(request: Request) -> Response:
        nonlocal asked
        asked += 1
        return Response(json.dumps({"error": {"message": "no", "type": "t"}}), status)

    app = Starlette(routes=[Route("/v1/chat/completions", answer, methods=["POST"])])
    async with serving(app, host="127.0.0.1", port=0) as origin, runtime_at(tmp_path, f"{origin}/v1") as runtime:
        id = await runtime.start([], llm=QUICK)
        assert await runtime.until(id, seconds=90) == "error"
        (error,) = await runtime.events(id, "ConversationErrorEvent")
    assert (error["code"], error["classification"]["retryable"], asked) == (code, False, 1)


async def test_an_answer_that_does_not_come_in_time_is_asked_for_again(runtime: Runtime, model: ScriptedModel) -> None:
    id = await runtime.start([{"text": "late", "sleep": 60}], llm={**QUICK, "num_retries": 1, "timeout": 1})
    assert await runtime.until(id, seconds=90) == "error"
    (error,) = await runtime.events(id, "ConversationErrorEvent")
    assert (error["code"], error["classification"]["retryable"]) == ("LLMTimeoutError", True)
    assert len(model.requests) == 2


@pytest.mark.parametrize(
    ("settings", "waits"),
    [
        ({}, [8, 16, 32, 64, 64]),
        ({"retry_min_wait": 1, "retry_multiplier": 0.5, "retry_max_wait": 3}, [1, 1, 2, 3, 3]),
        ({"retry_min_wait": 0, "retry_multiplier": 0, "retry_max_wait": 0}, [0] * 5),
    ],
)
def test_the_wait_before_each_try_grows_between_its_bounds(settings: dict[str, Any], waits: list[float]) -> None:
    asked = Model(LlmSettings(model="openai/x", **settings))
    assert [asked._wait_before(attempt) for attempt in range(1, 6)] == waits


async def test_the_last_server_that_ends_closes_the_connections_to_models(tmp_path: Path, model: ScriptedModel) -> None:
    def kept() -> list[Any]:
        return [client._client for client in sys.modules["litellm"].in_memory_llm_clients_cache.cache_dict.values()]

    async with runtime_at(tmp_path / "first", model.base_url) as first:
        async with runtime_at(tmp_path / "second", model.base_url) as second:
            await finish(second, await second.start([{"text": "done"}]))
        (client,) = kept()
        assert not client.is_closed
        await finish(first, await first.start([{"text": "done"}]))
        assert kept() == [client]
    assert client.is_closed
    assert kept() == []


async def test_what_calls_cost_is_counted_by_usage(runtime: Runtime) -> None:
    prices = {"input_cost_per_token": 0.5, "output_cost_per_token": 2.0}
    id = await runtime.start([terminal("echo x"), {"text": "done"}], llm={**prices, "usage_id": "mine"})
    await finish(runtime, id)
    metrics = (await runtime.http.get(f"/api/conversations/{id}")).json()["stats"]["usage_to_metrics"]
    assert list(metrics) == ["mine"]
    mine = metrics["mine"]
    total, each = mine["accumulated_token_usage"], mine["token_usages"]
    assert (mine["model_name"], len(each), len(mine["costs"]), len(mine["response_latencies"])) == (
        "openai/scripted",
        *(2, 2, 2),
    )
    for name in ("prompt_tokens", "completion_tokens"):
        assert total[name] == sum(usage[name] for usage in each) > 0
    assert [cost["cost"] for cost in mine["costs"]] == [
        usage["prompt_tokens"] * 0.5 + usage["completion_tokens"] * 2.0 for usage in each
    ]
    assert mine["accumulated_cost"] == sum(cost["cost"] for cost in mine["costs"])
    actions = await runtime.events(id, "ActionEvent")
    assert actions[0]["llm_response_id"] == each[0]["response_id"] == mine["response_latencies"][0]["response_id"]
    assert all(one["latency"] > 0 for one in mine["response_latencies"])
    told = [event["value"] for event in await runtime.events(id) if event.get("key") == "stats"]
    assert told[-1]["usage_to_metrics"]["mine"]["accumulated_cost"] == mine["accumulated_cost"]


HALF = "\ud800"


def spoken(**said: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": None, **said}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "r", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


def called(arguments: str) -> dict[str, Any]:
    function = {"name": "file_editor", "arguments": arguments}
    return spoken(tool_calls=[{"id": "c", "type": "function", "function": function}])


async def test_half_a_character_breaks_no_run(tmp_path: Path) -> None:
    """A model may write any JSON; what is no Unicode can be neither stored nor sent."""
    place = tmp_path / "work" / "made"
    arguments = json.dumps({"command": "create", "path": str(place), "file_text": f"a{HALF}b"})
    answers = [called(arguments), called(arguments.replace("\\ud800", HALF)), spoken(content=f"done {HALF}")]

    async def answer(request: Request) -> Response:
        return Response(json.dumps(answers.pop(0)), media_type="application/json")

    app = Starlette(routes=[Route("/v1/chat/completions", answer, methods=["POST"])])
    async with serving(app, host="127.0.0.1", port=0) as origin, runtime_at(tmp_path, f"{origin}/v1") as runtime:
        id = await runtime.start([])
        await finish(runtime, id)
        errors = [event["error"] for event in await runtime.events(id, "AgentErrorEvent")]
        assert (len(errors), "no Unicode" in errors[0]) == (1, True)
        assert place.read_text() == "a\ufffdb", "the second call, whose half was no escape"
        answered = (await runtime.http.get(f"/api/conversations/{id}/agent_final_response")).json()
        assert answered == {"response": "done \ufffd"}


async def test_what_the_log_says_of_costs_is_known_again(tmp_path: Path, model: ScriptedModel) -> None:
    prices = {"input_cost_per_token": 0.5, "output_cost_per_token": 2.0}

    async def metrics(runtime: Runtime, id: str) -> dict[str, Any]:
        info = (await runtime.http.get(f"/api/conversations/{id}")).json()
        found: dict[str, Any] = info["stats"]["usage_to_metrics"]["mine"]
        return {name: found[name] for name in ("accumulated_cost", "accumulated_token_usage")}

    async with runtime_at(tmp_path, model.base_url) as runtime:
        id = await runtime.start([{"text": "one"}], llm={**prices, "usage_id": "mine"})
        await finish(runtime, id)
        first = await metrics(runtime, id)
    (record,) = tmp_path.rglob(f"{id.replace('-', '')}/*.json")
    as_it_was = record.read_bytes()
    async with runtime_at(tmp_path, model.base_url) as runtime:
        await runtime.say(id, [terminal("echo x"), {"text": "two"}])
        await finish(runtime, id)
        second = await metrics(runtime, id)
    record.write_bytes(as_it_was)  # of a runtime that was killed before its record was on the disk again
    async with runtime_at(tmp_path, model.base_url) as runtime:
        assert await metrics(runtime, id) == second
        assert second["accumulated_cost"] > first["accumulated_cost"]
        await runtime.say(id, [{"text": "three"}])
        await finish(runtime, id)
        assert (await metrics(runtime, id))["accumulated_cost"] > second["accumulated_cost"]
