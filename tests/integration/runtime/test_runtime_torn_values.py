"""What a model says of a value that it was told: hidden in every piece, its reasoning, its thinking, and the log."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from orchestrator.demo.loopback import serving
from tests.support.runtimes import Runtime, runtime_at

pytestmark = pytest.mark.anyio
VALUE = "a-value-that-the-model-knows-5f1e"
CLOUD = "cloud-key-in-a-stream-77d2"
SAID = f"plain {VALUE}, coded {base64.b64encode(VALUE.encode()).decode()}, the cloud's {CLOUD}."
HIDDEN = "plain <secret-hidden>, coded <secret-hidden>, the cloud's <secret-hidden>."


async def _answer(request: Request) -> StreamingResponse:
    """Letter by letter, first as reasoning, then as text."""
    await request.body()

    async def pieces() -> AsyncIterator[str]:
        base: dict[str, Any] = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        for kind in ("reasoning_content", "content"):
            for letter in SAID:
                delta = {"role": "assistant", kind: letter}
                choice = {"index": 0, "delta": delta, "finish_reason": None}
                yield f"data: {json.dumps({**base, 'choices': [choice]})}\n\n"
        yield f"data: {json.dumps({**base, 'choices': [{'index': 0, 'delta': {}, 'finish_reason': 'stop'}]})}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(pieces(), media_type="text/event-stream")


@pytest.fixture
async def runtime(tmp_path: Any) -> AsyncIterator[Runtime]:
    app = Starlette(routes=[Route("/v1/chat/completions", _answer, methods=["POST"])])
    async with serving(app, host="127.0.0.1", port=0) as origin, runtime_at(tmp_path, f"{origin}/v1") as made:
        yield made


async def test_a_value_written_letter_by_letter_is_hidden_everywhere(runtime: Runtime) -> None:
    llm = {"stream": True, "aws_secret_access_key": CLOUD}
    id = await runtime.start(llm=llm, secrets={"A": VALUE})
    async with runtime.socket(id) as events, runtime.socket(id, kind="session") as session:
        await events.until_state()
        answer = await runtime.http.post(f"/api/conversations/{id}/run")
        assert answer.status_code == 200
        frames = await events.until_state(seconds=90)
        deltas = [frame for frame in frames if frame["kind"] == "StreamingDeltaEvent"]
        assert len(deltas) > 20
        for name in ("content", "reasoning_content"):
            assert "".join(delta.get(name) or "" for delta in deltas) == HIDDEN
        pieces = []
        while (frame := await session.next()).get("event", {}).get("key") != "full_state" or not pieces:
            pieces += [frame] if frame["type"] == "delta" else []
        for kind in ("text", "reasoning"):
            assert "".join(piece["content"] for piece in pieces if piece["kind"] == kind) == HIDDEN
    (said,) = await runtime.events(id, "MessageEvent")
    assert said["llm_message"]["content"][0]["text"] == HIDDEN
    assert said["llm_message"]["reasoning_content"] == HIDDEN
    kept = (runtime.folder / "conversations" / id.replace("-", "") / "events.jsonl").read_text()
    for value in (VALUE, CLOUD, base64.b64encode(VALUE.encode()).decode()[:20]):
        assert value not in kept
