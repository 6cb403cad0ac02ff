"""The runtime behind an OpenAI-compatible client: stored profiles are its models, a conversation is what answers."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest

from orchestrator.demo.model_server import ScriptedModel
from tests.support.runtimes import KEY, Runtime, runtime_at, terminal

pytestmark = pytest.mark.anyio
CONVERSATION = "X-OpenHands-ServerConversation-ID"
BEARER = {"Authorization": f"Bearer {KEY}", "X-Session-API-Key": ""}


@pytest.fixture
async def runtime(tmp_path: Path, model: ScriptedModel) -> AsyncIterator[Runtime]:
    async with runtime_at(tmp_path, model.base_url, max_concurrent_runs=1) as made:
        saved = await made.http.post("/api/profiles/quick", json={"llm": made.llm(usage_id="default")})
        assert saved.status_code == 201
        yield made


def script(*steps: Any) -> str:
    return f"SCRIPT:{json.dumps(steps)}"


async def chat(runtime: Runtime, text: Any, *, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    body = {"model": "openhands_quick", "messages": [{"role": "user", "content": text}], **more}
    return await runtime.http.post("/v1/chat/completions", json=body, headers=headers)


async def test_profiles_are_its_models(runtime: Runtime) -> None:
    for headers in ({}, BEARER):
        listed = (await runtime.http.get("/v1/models", headers=headers)).json()
        assert listed == {
            "object": "list",
            "data": [{"id": "openhands_quick", "object": "model", "created": 0, "owned_by": "openhands"}],
        }


async def test_who_has_no_key_learns_nothing(runtime: Runtime) -> None:
    wrong = ({"X-Session-API-Key": ""}, {"X-Session-API-Key": "", "Authorization": f"Basic {KEY}"})
    for headers in (*wrong, {"X-Session-API-Key": "", "Authorization": "Bearer wrong"}):
        assert (await runtime.http.get("/v1/models", headers=headers)).status_code == 401
        assert (await chat(runtime, "hi", headers=headers)).status_code == 401
    by_bearer = await runtime.http.get("/api/settings", headers=BEARER)
    assert by_bearer.status_code == 401, "a bearer opens the compatible routes alone"


async def test_a_chat_is_answered_by_an_agent_and_goes_on_in_the_same_conversation(runtime: Runtime) -> None:
    first = await runtime.http.post(
        "/v1/chat/completions",
        headers=BEARER,
        json={
            "model": "openhands_quick",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "earlier"},
                {"role": "assistant", "content": None},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": script(terminal("pwd"), {"text": "That is it."})}],
                },
            ],
        },
    )
    assert first.status_code == 200, first.text
    answer, id = first.json(), first.headers[CONVERSATION]
    assert (answer["object"], answer["model"]) == ("chat.completion", "openhands_quick")
    message = {"role": "assistant", "content": "That is it."}
    assert answer["choices"] == [{"index": 0, "finish_reason": "stop", "message": message}]
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    (observed,) = await runtime.observations(id)
    assert observed["content"][0]["text"].strip() == str(runtime.folder / "project")
    (prompt,) = await runtime.events(id, "SystemPromptEvent")
    assert "Be brief." in prompt["dynamic_context"]["text"]

    second = await chat(runtime, script({"text": "Again."}), headers={CONVERSATION: id})
    assert second.headers[CONVERSATION] == id
    assert second.json()["choices"][0]["message"]["content"] == "Again."
    assert second.json()["usage"]["completion_tokens"] < usage["completion_tokens"], "of this turn alone"
    kinds = [event["kind"] for event in await runtime.events(id, "MessageEvent")]
    assert len(kinds) == 4


async def test_an_answer_is_streamed_when_asked_for(runtime: Runtime) -> None:
    answer = await chat(runtime, script({"text": "Hello."}), stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *pieces, last = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line.startswith("data: ")]
    assert last == "[DONE]"
    chunks = [json.loads(piece) for piece in pieces]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]) == "Hello."
    assert [choice["finish_reason"] for choice in chunks[-2]["choices"]] == ["stop"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] > 0
    assert await runtime.status(answer.headers[CONVERSATION]) == "finished"


async def test_a_stream_whose_run_fails_says_so(runtime: Runtime) -> None:
    answer = await chat(runtime, script({"status": 400, "error": "scripted failure"}), stream=True)
    assert answer.status_code == 200
    (told,) = [line for line in answer.text.split("\n\n") if '"error"' in line]
    assert json.loads(told.removeprefix("data: "))["error"]["message"] == "Agent run ended with status: error"
    assert "scripted failure" not in answer.text
    assert "[DONE]" not in answer.text


async def test_responses_are_answered_too(runtime: Runtime) -> None:
    body = {
        "model": "openhands_quick",
        "instructions": "Be brief.",
        "input": [
            {"role": "developer", "content": "No jokes."},
            {"role": "user", "content": [{"type": "input_text", "text": script({"text": "Here."})}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "before"}]},
        ],
    }
    answer = await runtime.http.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert (shown["object"], shown["status"], shown["tools"]) == ("response", "completed", [])
    assert shown["output"][0]["content"] == [{"type": "output_text", "text": "Here.", "annotations": []}]
    assert shown["usage"]["total_tokens"] == shown["usage"]["input_tokens"] + shown["usage"]["output_tokens"] > 0
    (prompt,) = await runtime.events(answer.headers[CONVERSATION], "SystemPromptEvent")
    assert "Be brief.\n\nNo jokes." in prompt["dynamic_context"]["text"]
    plain = await runtime.http.post("/v1/responses", json={"model": "openhands_quick", "input": "hello"})
    assert plain.json()["output"][0]["content"][0]["text"] == "OK."


@pytest.mark.parametrize(
    ("path", "change", "status", "said"),
    [
        ("chat/completions", {"model": "openhands_none"}, 404, "openhands_none"),
        ("chat/completions", {"model": "gpt-4o"}, 404, "GET /v1/models"),
        ("chat/completions", {"messages": [{"role": "system", "content": "x"}]}, 400, "user message"),
        ("chat/completions", {"messages": [{"role": "user", "content": ""}]}, 400, "user message"),
        ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, 400, "audio"),
        ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "url"),
        ("chat/completions", {"messages": "no"}, 422, "messages"),
        ("responses", {"input": ""}, 400, "user message"),
        ("responses", {"stream": True}, 400, "stream"),
        ("responses", {"store": True}, 400, "store"),
        ("responses", {"previous_response_id": "resp_1"}, 400, "previous_response_id"),
    ],
)
async def test_what_cannot_be_answered_is_refused_and_makes_nothing(
    runtime: Runtime, path: str, change: dict[str, Any], status: int, said: str
) -> None:
    good = {"model": "openhands_quick", "input": "x", "messages": [{"role": "user", "content": "x"}]}
    answer = await runtime.http.post(f"/v1/{path}", json={**good, **change})
    assert answer.status_code == status, answer.text
    assert said in answer.text
    assert (await runtime.http.get("/api/conversations/count")).json() == 0


async def test_a_run_that_fails_is_an_error_without_its_reason(runtime: Runtime) -> None:
    answer = await chat(runtime, script({"status": 400, "error": "scripted failure"}))
    assert answer.status_code == 500
    assert answer.json() == {"detail": "Agent run ended with status: error"}
    assert await runtime.status(answer.headers[CONVERSATION]) == "error"


async def test_a_run_that_is_paused_or_asks_is_a_conflict(runtime: Runtime) -> None:
    id = str(uuid4())
    async with anyio.create_task_group() as tasks:
        answers: list[httpx.Response] = []

        async def ask() -> None:
            answers.append(await chat(runtime, script({"text": "slow", "sleep": 2}), headers={CONVERSATION: id}))

        tasks.start_soon(ask)
        with anyio.fail_after(20):
            while (await runtime.http.get(f"/api/conversations/{id}")).json().get("execution_status") != "running":
                await anyio.sleep(0.02)
        await runtime.http.post(f"/api/conversations/{id}/interrupt")
    assert answers[0].status_code == 409
    assert answers[0].json() == {"detail": "Agent run ended with status: paused"}

    await runtime.http.patch("/api/settings", json={"conversation_settings_diff": {"confirmation_mode": True}})
    asking = await chat(runtime, script(terminal("touch made"), {"text": "x"}))
    assert asking.status_code == 409
    assert asking.json() == {"detail": "Agent run ended with status: waiting_for_confirmation"}
    assert not (runtime.folder / "project" / "made").exists()


async def test_a_full_runtime_refuses_and_stores_nothing(runtime: Runtime) -> None:
    idle = await chat(runtime, "hello")
    before = len(await runtime.events(idle.headers[CONVERSATION]))
    busy = await runtime.start([{"text": "slow", "sleep": 30}])
    for headers in ({}, {CONVERSATION: idle.headers[CONVERSATION]}):
        answer = await chat(runtime, "hello", headers=headers)
        assert answer.status_code == 429
        assert "Retry-After" in answer.headers
    assert (await runtime.http.get("/api/conversations/count")).json() == 2
    assert len(await runtime.events(idle.headers[CONVERSATION])) == before, "the message can be sent again"
    await runtime.http.post(f"/api/conversations/{busy}/interrupt")
