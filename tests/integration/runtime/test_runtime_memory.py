"""Long conversations: condensed by size, on demand, and when the model takes no more; questions beside the work."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from orchestrator.demo.loopback import serving
from orchestrator.demo.model_server import ScriptedModel
from tests.support.runtimes import MODEL_KEY, Runtime, message, runtime_at

pytestmark = pytest.mark.anyio

SAMPLES = Path(__file__).parents[2] / "contract" / "runtime" / "samples"
LONGEST = 12  # messages that the small model takes


def body(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())["response"]["body"]


async def condensing(runtime: Runtime, **more: Any) -> str:
    """A conversation with a condenser."""
    sent = runtime.body()
    sent["agent"]["condenser"] = {"kind": "LLMSummarizingCondenser", "llm": runtime.llm(), "keep_first": 1, **more}
    answer = await runtime.http.post("/api/conversations", json=sent)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def talk(runtime: Runtime, id: str, turns: int) -> None:
    for turn in range(turns):
        answer = await runtime.http.post(
            f"/api/conversations/{id}/events", json={**message(f"message {turn}"), "run": True}
        )
        assert answer.status_code == 200
        await runtime.finish(id)


async def post(runtime: Runtime, id: str, what: str, sent: Any = None) -> tuple[int, Any]:
    answer = await runtime.http.post(f"/api/conversations/{id}/{what}", json=sent)
    return answer.status_code, answer.json()


async def test_without_a_condenser_nothing_can_be_condensed(runtime: Runtime) -> None:
    id = await runtime.start()
    assert await post(runtime, id, "condense") == (409, body("04-condense-409"))
    assert await runtime.events(id) == []


async def test_on_demand_the_middle_becomes_a_summary(runtime: Runtime, model: ScriptedModel) -> None:
    id = await condensing(runtime)
    await talk(runtime, id, 4)
    assert await post(runtime, id, "condense") == (200, body("04-condense"))
    (event,) = await runtime.events(id, "Condensation")
    everything = {one["id"]: one["kind"] for one in await runtime.events(id)}
    assert {everything[one] for one in event["forgotten_event_ids"]} == {"MessageEvent"}
    assert (event["summary_offset"], bool(event["summary"])) == (1, True)
    assert len(await runtime.events(id, "CondensationRequest")) == 1
    before = 1 + 2 * 4
    await talk(runtime, id, 1)
    assert model.requests[-1].messages < before, "the model sees less than before"
    stats = (await runtime.http.get(f"/api/conversations/{id}")).json()["stats"]["usage_to_metrics"]
    assert stats["condenser"]["accumulated_token_usage"]["prompt_tokens"] > 0


async def test_a_long_conversation_is_condensed_by_itself_and_again(runtime: Runtime, model: ScriptedModel) -> None:
    id = await condensing(runtime, max_size=8)
    await talk(runtime, id, 9)
    assert len(await runtime.events(id, "Condensation")) >= 2
    assert max(request.messages for request in model.requests) <= 8
    kept = [event["llm_message"]["content"][0]["text"] for event in await runtime.events(id, "MessageEvent")]
    assert kept[::2] == [f"message {turn}" for turn in range(9)], "the log keeps everything"


async def test_it_is_condensed_when_a_call_has_too_many_tokens(runtime: Runtime) -> None:
    id = await condensing(runtime, max_tokens=4_000)
    for text in ("short", "x" * 6_000, "y" * 6_000, "short again"):
        await runtime.http.post(f"/api/conversations/{id}/events", json={**message(text), "run": True})
        await runtime.finish(id)
        condensed = await runtime.events(id, "Condensation")
        assert bool(condensed) == (text in ("y" * 6_000, "short again")), text[:20]


async def test_it_is_remembered_over_a_restart(tmp_path: Path, model: ScriptedModel) -> None:
    async with runtime_at(tmp_path, model.base_url) as first:
        id = await condensing(first, max_size=8)
        await talk(first, id, 6)
        seen = model.requests[-1].messages
    async with runtime_at(tmp_path, model.base_url) as second:
        await talk(second, id, 1)
        assert model.requests[-1].messages <= seen + 2


class SmallModel:
    """A model with a short memory: more messages than it takes are refused as a real one does."""

    def __init__(self) -> None:
        self.refused = 0

    async def answer(self, request: Request) -> JSONResponse:
        sent = await request.json()
        if len(sent["messages"]) > LONGEST:
            self.refused += 1
            error = {
                "message": "This model's maximum context length is 12 tokens.",
                "code": "context_length_exceeded",
                "type": "x",
            }
            return JSONResponse({"error": error}, 400)
        choice = {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return JSONResponse(
            {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
        )


async def test_a_model_that_can_take_no_more_is_asked_again_with_less(tmp_path: Path) -> None:
    small = SmallModel()
    app = Starlette(routes=[Route("/v1/chat/completions", small.answer, methods=["POST"])])
    async with serving(app, host="127.0.0.1", port=0) as place, runtime_at(tmp_path, f"{place}/v1") as runtime:
        id = await condensing(runtime)
        await talk(runtime, id, 10)
        assert small.refused > 0
        assert await runtime.events(id, "Condensation")
        bare = await runtime.start()
        with anyio.fail_after(60):
            for turn in range(10):
                await runtime.http.post(f"/api/conversations/{bare}/events", json={**message(f"{turn}"), "run": True})
                if await runtime.until(bare) == "error":
                    break
        (error,) = await runtime.events(bare, "ConversationErrorEvent")
        assert error["code"] == "LLMContextWindowExceedError"


async def test_a_question_is_answered_and_leaves_no_trace(runtime: Runtime) -> None:
    id = await runtime.start()
    await talk(runtime, id, 1)
    before = await runtime.events(id)
    status, answer = await post(runtime, id, "ask_agent", {"question": "what?"})
    assert (status, list(answer)) == (200, list(body("04-ask-agent")))
    assert answer["response"]
    assert await runtime.events(id) == before
    stats = (await runtime.http.get(f"/api/conversations/{id}")).json()["stats"]["usage_to_metrics"]
    assert "ask-agent-llm" in stats
    for wrong in ({}, {"question": ""}, {"question": "a\0"}):
        assert (await post(runtime, id, "ask_agent", wrong))[0] == 422


async def test_a_question_is_answered_while_the_agent_works(runtime: Runtime) -> None:
    id = await runtime.start([{"text": "busy", "tool": "terminal", "args": {"command": "sleep 60"}}])
    with anyio.fail_after(60):
        while not await runtime.events(id, "ActionEvent"):
            await anyio.sleep(0.02)
        status, answer = await post(runtime, id, "ask_agent", {"question": "still there?"})
    assert (status, answer["response"], await runtime.status(id)) == (200, "busy", "running")
    await post(runtime, id, "interrupt")


async def test_a_conversation_of_the_older_form_condenses_by_default(runtime: Runtime, model: ScriptedModel) -> None:
    llm = {"llm_model": "openai/scripted", "llm_api_key": MODEL_KEY, "llm_base_url": model.base_url}
    assert (await runtime.http.post("/api/settings", json=llm)).status_code == 200
    made = (await runtime.http.post("/api/conversations", json={"initial_user_msg": "hello"})).json()
    id = str(UUID(made["conversation_id"]))
    await runtime.finish(id)
    shown = (await runtime.http.get(f"/api/conversations/{id}")).json()
    assert (shown["agent"]["condenser"]["kind"], shown["agent"]["condenser"]["llm"].get("api_key")) == (
        "LLMSummarizingCondenser",
        None,
    )
    await talk(runtime, id, 4)
    assert (await post(runtime, id, "condense"))[0] == 200
    assert len(await runtime.events(id, "Condensation")) == 1
