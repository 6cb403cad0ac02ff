"""Which part of a chat a provider is asked to keep: as the provider gets it, from the library's own call."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from orchestrator.demo.loopback import serving
from tests.support.runtimes import Runtime, message, runtime_at, terminal

pytestmark = pytest.mark.anyio
CALL = terminal("echo one")


class Provider:
    """Calls the terminal once, then says something."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    async def answer(self, request: Request) -> JSONResponse:
        self.bodies.append(await request.json())
        text = {"type": "text", "text": "done"}
        use = {"type": "tool_use", "id": "toolu_1", "name": CALL["tool"], "input": CALL["args"]}
        first = len(self.bodies) == 1
        return JSONResponse(
            {
                "id": f"msg_{len(self.bodies)}",
                "type": "message",
                "role": "assistant",
                "model": "claude-sonnet-4-5",
                "content": [use if first else text],
                "stop_reason": "tool_use" if first else "end_turn",
                "stop_sequence": None,
                "usage": {"input_tokens": 5, "output_tokens": 5, "cache_read_input_tokens": 3},
            }
        )


@pytest.fixture
async def provider() -> AsyncIterator[tuple[Provider, str]]:
    made = Provider()
    app = Starlette(routes=[Route("/v1/messages", made.answer, methods=["POST"])])
    async with serving(app, host="127.0.0.1", port=0) as origin:
        yield made, origin


def marks(part: Any) -> int:
    if isinstance(part, dict):
        return ("cache_control" in part) + sum(marks(value) for value in part.values())
    return sum(map(marks, part)) if isinstance(part, list) else 0


@pytest.mark.parametrize("wanted", [True, False])
async def test_what_a_provider_may_keep(tmp_path: Path, provider: tuple[Provider, str], wanted: bool) -> None:
    made, origin = provider
    llm = {"model": "anthropic/claude-sonnet-4-5", "base_url": origin, "caching_prompt": wanted}
    async with runtime_at(tmp_path) as runtime:
        id = await begun(runtime, llm)
        assert await runtime.until(id, seconds=100) == "finished", await runtime.events(id, "ConversationErrorEvent")
        assert await runtime.outputs(id) == ["one"]
    first, second = made.bodies
    for body in (first, second):
        assert marks(body["system"]) == wanted
        assert marks(body["messages"]) == marks(body["messages"][-1]) == wanted
        assert marks(body) == 2 * wanted


async def begun(runtime: Runtime, llm: dict[str, Any]) -> str:
    body = {**runtime.body(llm=llm), "initial_message": message("hello")}
    answer = await runtime.http.post("/api/conversations", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])
