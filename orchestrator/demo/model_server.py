"""A model on loopback that speaks the OpenAI chat protocol and plays the script it finds in the chat.

The demo and the tests start it so that litellm does its real work without a provider. `ScriptedModel` runs inside
the process that needs it; `python -m orchestrator.demo.model_server --port N` runs it alone. It knows nothing of the
orchestrator, and it keeps of the keys it saw only a fingerprint.
"""

import argparse
import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import anyio
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from orchestrator.demo.chat import Answer, answer, error_body
from orchestrator.demo.loopback import serving
from orchestrator.demo.script import BadScript, Step, next_step

MODEL_NAME = "scripted"
#: How many past requests a test can look at; older ones are forgotten.
REMEMBERED_REQUESTS = 1000


@dataclass(frozen=True)
class SeenRequest:
    """What the model remembers of a request: never a key, never a text."""

    method: str
    path: str
    key_fingerprint: str | None
    model: str | None = None
    messages: int = 0
    tools: tuple[str, ...] = ()
    stream: bool = False


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _ChatRequest(BaseModel):
    """The part of a chat request that decides the answer; sampling parameters are accepted and ignored."""

    model_config = ConfigDict(extra="ignore")

    model: str
    messages: list[dict[str, Any]] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


def fingerprint(key: str | None) -> str | None:
    """What is kept of a key: enough to tell two apart, nothing to call with."""
    return None if key is None else hashlib.sha256(key.encode()).hexdigest()[:12]


class ScriptedModel:
    """The server as an async context manager; `base_url` is what an OpenAI client is given (it ends in /v1)."""

    def __init__(self, *, required_key: str | None = None, host: str = "127.0.0.1", port: int = 0) -> None:
        self.required_key = required_key
        #: answers to calls that bring no tools (a title, a verdict), first come first; before any script
        self.asides: deque[Step] = deque()
        self.requests: deque[SeenRequest] = deque(maxlen=REMEMBERED_REQUESTS)
        self._host = host
        self._port = port
        self._origin: str | None = None
        self._failures: Counter[str] = Counter()
        self._stack = contextlib.AsyncExitStack()
        self._ending = asyncio.Event()

    @property
    def base_url(self) -> str:
        """Raises RuntimeError outside of the `with` block."""
        if self._origin is None:
            raise RuntimeError("the scripted model is not running: enter it with `async with` first")
        return f"{self._origin}/v1"

    async def __aenter__(self) -> "ScriptedModel":
        self._ending.clear()
        self._origin = await self._stack.enter_async_context(serving(self._app(), host=self._host, port=self._port))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._origin = None
        await self._stack.aclose()

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/models", self._models, methods=["GET"]),
            ]
        )

    async def _models(self, request: Request) -> Response:
        self.requests.append(SeenRequest("GET", request.url.path, fingerprint(_bearer(request))))
        if refusal := self._refusal(request):
            return refusal
        model = {"id": MODEL_NAME, "object": "model", "created": 0, "owned_by": "nestor"}
        return JSONResponse({"object": "list", "data": [model]})

    async def _chat(self, request: Request) -> Response:
        raw = await request.body()
        try:
            chat = _ChatRequest.model_validate_json(raw)
        except ValidationError as exc:
            self.requests.append(SeenRequest("POST", request.url.path, fingerprint(_bearer(request))))
            first = exc.errors()[0]
            return _failure(400, f"{'.'.join(str(part) for part in first['loc']) or 'body'}: {first['msg']}")
        self.requests.append(_seen(request, chat))
        if refusal := self._refusal(request):
            return refusal
        try:
            aside = self.asides.popleft() if self.asides and not chat.tools else None
            step = aside or next_step(chat.messages, has_tools=bool(chat.tools))
        except BadScript as exc:
            return _failure(400, str(exc))
        await self._pause(step.sleep)
        if step.status is not None and self._fails(step, chat):
            return _failure(step.status, step.error)
        return self._answer(step, chat)

    def _answer(self, step: Step, chat: _ChatRequest) -> Response:
        reply = answer(step, model=chat.model, messages=chat.messages)
        if not chat.stream:
            return JSONResponse(reply.whole())
        include_usage = chat.stream_options is not None and chat.stream_options.include_usage
        pieces = self._stream(reply, include_usage=include_usage, gap_seconds=step.slow)
        return StreamingResponse(pieces, media_type="text/event-stream")

    async def _stream(self, reply: Answer, *, include_usage: bool, gap_seconds: float) -> AsyncIterator[str]:
        for piece in reply.pieces(include_usage=include_usage):
            yield f"data: {json.dumps(piece)}\n\n"
            await self._pause(gap_seconds)
        yield "data: [DONE]\n\n"

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not past the end of the server."""
        if seconds:
            with anyio.move_on_after(seconds):
                await self._ending.wait()

    def _fails(self, step: Step, chat: _ChatRequest) -> bool:
        if step.times is None:
            return True
        # A failed call leaves no trace in the chat, so the same step is recognised by the chat so far.
        turn = hashlib.sha256(json.dumps(chat.messages, sort_keys=True).encode()).hexdigest()
        self._failures[turn] += 1
        return self._failures[turn] <= step.times

    def _refusal(self, request: Request) -> Response | None:
        if self.required_key is None or hmac.compare_digest(
            (_bearer(request) or "").encode(), self.required_key.encode()
        ):
            return None
        return _failure(401, "Incorrect API key provided.")


def _bearer(request: Request) -> str | None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None


def _seen(request: Request, chat: _ChatRequest) -> SeenRequest:
    return SeenRequest(
        method=request.method,
        path=request.url.path,
        key_fingerprint=fingerprint(_bearer(request)),
        model=chat.model,
        messages=len(chat.messages),
        tools=tuple(str(tool.get("function", {}).get("name")) for tool in chat.tools or ()),
        stream=bool(chat.stream),
    )


def _failure(status: int, message: str) -> JSONResponse:
    return JSONResponse(error_body(status, message), status_code=status)


async def _run_until_signalled(model: ScriptedModel) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with model:
            sys.stdout.write(json.dumps({"base_url": model.base_url}) + "\n")
            sys.stdout.flush()
            async for _ in signals:
                return


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; prints one JSON line with `base_url` once it listens."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.demo.model_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--required-key-env", metavar="NAME", help="environment variable that holds the accepted key")
    options = parser.parse_args(arguments)
    # The variable's name is an argument of this program, so it cannot be a field of settings.py.
    key = os.environ.get(options.required_key_env) if options.required_key_env else None
    if options.required_key_env and not key:
        parser.error(f"--required-key-env: {options.required_key_env} is not set or empty")
    try:
        anyio.run(_run_until_signalled, ScriptedModel(required_key=key, host=options.host, port=options.port))
    except OSError as exc:
        sys.stderr.write(f"{exc.strerror or exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
