"""The only place that knows litellm: asks a model, counts what it cost, tells its errors.

The loop calls `Model.ask`. The library takes seconds to import, so it is imported once, in a thread, when the first
message comes (`warm_up`) or at the latest when a model is asked; the server is ready long before, and answers
meanwhile. Its price map is the local one: nothing is fetched.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import structlog
from pydantic import TypeAdapter, ValidationError

from runtime.agent.caching import marked, wants_marks
from runtime.agent.completion_log import completion_log
from runtime.agent.failures import TOO_LONG, failure_of
from runtime.agent.reply import CONTEXT_EXCEEDED, AskingAbandoned, ModelError, Reply
from runtime.agent.size import tokens_of
from runtime.agent.stats import TokenUsage
from runtime.agent.streaming import Collected, called, collect, new_call_id, whole_text
from runtime.configuration.record import LlmSettings
from runtime.events.content import AnyThinkingBlock

log = structlog.get_logger()

OnDelta = Callable[[str | None, str | None], None]

_import_lock = threading.Lock()
_holders: set[object] = set()
_thinking: TypeAdapter[AnyThinkingBlock] = TypeAdapter(AnyThinkingBlock)
_MOST_DETAIL = 2_000
_DEADLINE_GRACE = 5.0
_NO_TIMEOUT_SECONDS = 3600.0
#: how long the import keeps the interpreter when the server wants it; five milliseconds is what Python gives
_SWITCH_SECONDS = 0.0005


def load() -> Any:
    """litellm, imported once. Blocks for seconds the first time: call it in a thread."""
    with _import_lock:
        # What the library does with its own types is nothing that who runs a runtime could change.
        warnings.filterwarnings("ignore", message=r"Items? .* using the `ReadOnly` qualifier", category=UserWarning)
        warnings.filterwarnings("ignore", module=r"litellm(\.|$)")
        # It makes a provider's coroutine in a thread; a call that is cancelled just then drops it. Nothing is lost.
        warnings.filterwarnings("ignore", message=r"coroutine '.*completion.*' was never", category=RuntimeWarning)
        # The library reads this at import; without it, it would fetch a price map from the network.
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
        with _beside_a_server():
            library = _imported()
            library.openai = importlib.import_module("openai")  # the base of all its errors
        # Because of a fault of the TLS of older Pythons, which the server's event loop does not use, it would wake up
        # every two seconds from its first call on.
        library.llms.custom_httpx.http_handler.AIOHTTP_NEEDS_CLEANUP_CLOSED = False
        library.suppress_debug_info = True
        library.turn_off_message_logging = True
        logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)  # its lines can hold request bodies
        return library


def _imported() -> Any:
    try:
        return importlib.import_module("litellm")
    except BaseException:
        # Its parts that were imported would stay, without a place in the package that the next import makes: every call
        # of the model would fail for good, where only a moment's lack of descriptors or memory was the matter.
        for name in [name for name in sys.modules if name.partition(".")[0] == "litellm"]:
            del sys.modules[name]
        raise


@contextmanager
def _beside_a_server() -> Iterator[None]:
    """For an import of seconds in a thread: the server's thread gets the interpreter when it wants it.

    Collections of garbage stop everything, and looking again and again at what an import leaves for good is a quarter
    of its time: none happens meanwhile, and none looks at it later.
    """
    if "litellm" in sys.modules:
        yield
        return
    interval, collects = sys.getswitchinterval(), gc.isenabled()
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()
        sys.setswitchinterval(interval)


async def warm_up() -> None:
    """Import the library in a thread, so that the first run is not slow. Idempotent."""
    await asyncio.to_thread(load)


def hold_connections(holder: object) -> None:
    """`holder` asks models from now on, until it calls `release_connections`. Idempotent."""
    _holders.add(holder)


async def release_connections(holder: object) -> None:
    """The last holder of this process closes what the library keeps open for later calls. Idempotent.

    Its own calls have to be over: they would fail.
    """
    _holders.discard(holder)
    library = sys.modules.get("litellm")
    if library is None or _holders or _import_lock.locked():  # half an import has kept nothing, and cannot be asked
        return
    await library.close_litellm_async_clients()
    library.in_memory_llm_clients_cache.flush_cache()


class Model:
    """One configured model."""

    def __init__(self, settings: LlmSettings) -> None:
        self._settings = settings

    async def ask(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        *,
        on_delta: OnDelta,
        abandon: asyncio.Event,
    ) -> Reply:
        """The model's answer, after retries as its settings say. Raises ModelError, AskingAbandoned.

        `on_delta(content, reasoning)` is called for each piece when the settings ask for streaming. `abandon` ends the
        wait before a retry.
        """
        self._check_length(messages, tools)
        library = await asyncio.to_thread(load)
        attempt = 0
        while True:
            try:
                reply = await self._ask_once(library, messages, tools, on_delta)
                if self._settings.log_completions:
                    reply = replace(reply, log=completion_log(self._settings, messages, tools, reply))
                return reply
            except (library.openai.OpenAIError, OSError, TimeoutError, ValueError) as error:
                failure = failure_of(error)
                if not failure.retry or attempt >= self._settings.num_retries:
                    raise ModelError(failure.code, _told(error), failure.classification) from error
                attempt += 1
                seconds = self._wait_before(attempt)
                log.info("model.retry", code=failure.code, attempt=attempt, seconds=seconds)
                await _pause(seconds, abandon)

    def _check_length(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> None:
        """The same error as when the model itself can take no more. Raises ModelError."""
        most = self._settings.max_input_tokens
        if most is not None and (tokens := tokens_of(messages, tools)) > most:
            detail = f"The call has about {tokens} tokens, more than the {most} of max_input_tokens."
            raise ModelError(CONTEXT_EXCEEDED, detail, TOO_LONG)

    def _wait_before(self, attempt: int) -> float:
        grown = self._settings.retry_multiplier * 2.0 ** (attempt - 1)
        return min(float(self._settings.retry_max_wait), max(float(self._settings.retry_min_wait), grown))

    async def _ask_once(
        self,
        library: Any,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        on_delta: OnDelta,
    ) -> Reply:
        started = time.monotonic()
        seconds = float(self._settings.timeout or _NO_TIMEOUT_SECONDS)
        # The library has the deadline too; ours is for the ways of waiting that it does not bound.
        async with asyncio.timeout(seconds + _DEADLINE_GRACE):
            answer = await library.acompletion(**self._arguments(library, messages, tools))
            if self._settings.stream:
                collected = await collect(_idle_bound(answer, self._settings.stream_idle_timeout), on_delta)
            else:
                collected = _collected(answer)
        return self._reply(library, collected, latency=time.monotonic() - started)

    def _arguments(
        self, library: Any, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        llm = self._settings
        secret = {
            "api_key": llm.api_key,
            "aws_access_key_id": llm.aws_access_key_id,
            "aws_secret_access_key": llm.aws_secret_access_key,
            "aws_session_token": llm.aws_session_token,
        }
        optional: dict[str, Any] = {
            **{name: value.get_secret_value() for name, value in secret.items() if value is not None},
            "base_url": llm.base_url,
            "api_version": llm.api_version,
            "aws_region_name": llm.aws_region_name,
            "aws_profile_name": llm.aws_profile_name,
            "aws_role_name": llm.aws_role_name,
            "aws_session_name": llm.aws_session_name,
            "aws_bedrock_runtime_endpoint": llm.aws_bedrock_runtime_endpoint,
            "temperature": llm.temperature,
            "top_p": llm.top_p,
            "top_k": llm.top_k,
            "max_completion_tokens": llm.max_output_tokens,
            "seed": llm.seed,
            "timeout": llm.timeout,
            "extra_body": llm.litellm_extra_body or None,
            "reasoning_effort": self._reasoning_effort(library),
            "tools": list(tools) or None,
        }
        if llm.extra_headers:
            optional["extra_headers"] = {name: value.get_secret_value() for name, value in llm.extra_headers.items()}
        if llm.stream:
            optional |= {"stream": True, "stream_options": {"include_usage": True}}
        given = {name: value for name, value in optional.items() if value is not None}
        caches = llm.caching_prompt and wants_marks(llm.model)
        chat = marked(messages) if caches else [dict(message) for message in messages]
        return {
            "model": llm.model,
            "messages": chat,
            "drop_params": llm.drop_params,
            "num_retries": 0,
            "max_retries": 0,
            # Its own MCP gateway would be imported for any call with tools, and wants a package that is not needed.
            "_skip_mcp_handler": True,
            **given,
        }

    def _reasoning_effort(self, library: Any) -> str | None:
        effort = self._settings.reasoning_effort
        if effort in {None, "none"} or not _price(library, self._settings.model).get("supports_reasoning"):
            return None
        return effort

    def _reply(self, library: Any, collected: Collected, *, latency: float) -> Reply:
        price = _price(library, self._settings.model)
        usage = _usage(collected.usage, self._settings.model, collected.response_id, price)
        # Prices of one's own are counted here: the library would keep them for every later call of that model.
        own = self._settings.input_cost_per_token is not None or self._settings.output_cost_per_token is not None
        told = None if own else collected.cost
        cost = told if told is not None else _cost(usage, price, self._settings)
        return Reply(
            text=collected.text,
            tool_calls=collected.tool_calls,
            response_id=collected.response_id,
            usage=usage,
            cost=cost,
            latency=latency,
            reasoning=collected.reasoning or None,
            thinking_blocks=collected.thinking_blocks,
        )


async def _pause(seconds: float, abandon: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await abandon.wait()
    except TimeoutError:
        return
    raise AskingAbandoned


async def _idle_bound(chunks: AsyncIterator[Any], seconds: float | None) -> AsyncIterator[Any]:
    """The chunks, with a TimeoutError when none comes for so long."""
    iterator = aiter(chunks)
    while True:
        try:
            async with asyncio.timeout(seconds):
                chunk = await anext(iterator)
        except StopAsyncIteration:
            return
        yield chunk


def _told(error: BaseException) -> str:
    """What the provider said; the library prefixes its class name. The tracebacks that it adds are cut off."""
    text = str(getattr(error, "message", "") or error).partition("\nTraceback (most recent call last)")[0]
    text = text[:_MOST_DETAIL]
    return text if text.startswith("litellm.") else f"{type(error).__name__}: {text}"


def _collected(answer: Any) -> Collected:
    message = answer.choices[0].message
    calls = [
        called(call.id or new_call_id(), call.function.name or "", call.function.arguments or "{}")
        for call in message.tool_calls or []
    ]
    hidden = getattr(answer, "_hidden_params", None) or {}
    cost = hidden.get("response_cost")
    return Collected(
        text=whole_text(message.content or ""),
        reasoning=whole_text(getattr(message, "reasoning_content", None) or ""),
        tool_calls=calls,
        thinking_blocks=_thinking_blocks(getattr(message, "thinking_blocks", None) or []),
        response_id=answer.id or "",
        usage=getattr(answer, "usage", None),
        cost=float(cost) if isinstance(cost, int | float) else None,
    )


def _thinking_blocks(blocks: Sequence[Any]) -> list[AnyThinkingBlock]:
    """Blocks of a shape that we do not know are left out: they could not be sent back either."""
    known: list[AnyThinkingBlock] = []
    for block in blocks:
        try:
            known.append(_thinking.validate_python(dict(block)))
        except ValidationError:
            log.warning("model.unknown_thinking_block", keys=sorted(dict(block)))
    return known


def _price(library: Any, model: str) -> Mapping[str, Any]:
    """The price map's entry, empty for a model that it does not know."""
    prices: Mapping[str, Mapping[str, Any]] = library.model_cost
    return prices.get(model) or prices.get(model.partition("/")[2]) or {}


def _usage(usage: Any, model: str, response_id: str, price: Mapping[str, Any]) -> TokenUsage:
    prompt_details = getattr(usage, "prompt_tokens_details", None)
    completion_details = getattr(usage, "completion_tokens_details", None)
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    window = price.get("max_input_tokens")
    return TokenUsage(
        model=model,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cache_read_tokens=_count(prompt_details, "cached_tokens"),
        cache_write_tokens=_count(usage, "cache_creation_input_tokens"),
        reasoning_tokens=_count(completion_details, "reasoning_tokens"),
        context_window=window if isinstance(window, int) else 0,
        per_turn_token=prompt + completion,
        response_id=response_id,
    )


def _count(record: Any, name: str) -> int:
    value = getattr(record, name, None)
    return value if isinstance(value, int) and value > 0 else 0


def _cost(usage: TokenUsage, price: Mapping[str, Any], settings: LlmSettings) -> float:
    """From the price map, or the settings' own prices; 0 when neither knows."""
    prompt_price = settings.input_cost_per_token or price.get("input_cost_per_token") or 0.0
    completion_price = settings.output_cost_per_token or price.get("output_cost_per_token") or 0.0
    cached_price = price.get("cache_read_input_token_cost") or prompt_price
    fresh = max(0, usage.prompt_tokens - usage.cache_read_tokens)
    return float(
        fresh * prompt_price + usage.cache_read_tokens * cached_price + usage.completion_tokens * completion_price
    )
