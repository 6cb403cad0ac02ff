"""The scripted model, called the way the runtime calls a model: through litellm over a real socket."""

import asyncio
import json
import os
import signal
import sys
import time

import anyio
import httpx
import litellm
import pytest

from orchestrator.demo.model_server import ScriptedModel
from orchestrator.demo.script import BadScript, write_script

pytestmark = [
    pytest.mark.anyio,
    # litellm's own habits, complained about by pydantic.
    pytest.mark.filterwarnings("ignore:Item .* is using the `ReadOnly` qualifier:UserWarning"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
]

TOOLS = [{"type": "function", "function": {"name": "terminal", "parameters": {"type": "object", "properties": {}}}}]


async def ask(model, messages, **more):
    return await litellm.acompletion(
        model="openai/scripted",
        base_url=model.base_url,
        api_key="k-1",
        messages=messages,
        timeout=20,
        _skip_mcp_handler=True,  # litellm's gateway tools need a package that nothing here uses
        **more,
    )


async def seen(model, number):
    """Wait until the model was asked `number` times."""
    with anyio.fail_after(20):
        while len(model.requests) < number:
            await anyio.sleep(0.01)


def user(*steps):
    return {"role": "user", "content": "please " + write_script(steps)}


async def test_a_script_is_played_answer_by_answer_and_ends_with_done():
    async with ScriptedModel() as model:
        chat = [user({"text": "look", "tool": "terminal", "args": {"command": "ls"}}, {"text": "bye"})]
        first = (await ask(model, chat, tools=TOOLS)).choices[0]
        call = first.message.tool_calls[0]
        assert first.finish_reason == "tool_calls"
        assert first.message.content == "look"
        assert (call.function.name, json.loads(call.function.arguments)) == ("terminal", {"command": "ls"})

        chat += [first.message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "a b"}]
        second = (await ask(model, chat, tools=TOOLS)).choices[0]
        assert (second.finish_reason, second.message.content) == ("stop", "bye")

        chat += [second.message.model_dump(), {"role": "user", "content": "more"}]
        assert (await ask(model, chat, tools=TOOLS)).choices[0].message.content == "Done."


async def test_the_last_scripted_message_decides():
    async with ScriptedModel() as model:
        chat = [user({"text": "old"}), {"role": "assistant", "content": "old"}, user({"text": "new"})]
        assert (await ask(model, chat)).choices[0].message.content == "new"


async def test_a_script_is_found_in_content_parts():
    async with ScriptedModel() as model:
        parts = [{"type": "text", "text": "hello"}, {"type": "text", "text": write_script([{"text": "found"}])}]
        assert (await ask(model, [{"role": "user", "content": parts}])).choices[0].message.content == "found"


async def test_without_a_script_titles_and_agents_get_their_fixed_answers():
    async with ScriptedModel() as model:
        chat = [{"role": "user", "content": "hello"}]
        assert (await ask(model, chat)).choices[0].message.content == "Fake title or answer"
        assert (await ask(model, chat, tools=TOOLS)).choices[0].message.content == "OK."


async def test_parallel_calls_have_ids_of_their_own():
    async with ScriptedModel() as model:
        step = {"tools": [{"tool": "terminal", "args": {"command": c}} for c in ("a", "b")]}
        ids = set()
        for _ in range(2):
            answer = await ask(model, [user(step)], tools=TOOLS)
            ids |= {call.id for call in answer.choices[0].message.tool_calls}
        assert len(ids) == 4


async def test_streaming_gives_the_same_answer_and_the_same_usage_as_the_whole():
    async with ScriptedModel() as model:
        chat = [user({"text": "a text", "tool": "terminal", "args": {"command": "echo hello"}})]
        whole = await ask(model, chat, tools=TOOLS)
        stream = await ask(model, chat, tools=TOOLS, stream=True, stream_options={"include_usage": True})
        pieces = [piece async for piece in stream]
        built = litellm.stream_chunk_builder(pieces, messages=chat)
        assert built.choices[0].message.content == "a text"
        function, expected = (x.choices[0].message.tool_calls[0].function for x in (built, whole))
        assert (function.name, function.arguments) == (expected.name, expected.arguments)
        assert pieces[-1].usage.model_dump()["prompt_tokens"] == whole.usage.prompt_tokens
        assert pieces[-1].usage.model_dump()["completion_tokens"] == whole.usage.completion_tokens


async def test_usage_is_a_quarter_of_the_characters():
    async with ScriptedModel() as model:
        usage = (await ask(model, [{"role": "user", "content": "x" * 400}])).usage
        assert (usage.prompt_tokens, usage.completion_tokens) == (100, len("Fake title or answer") // 4)


async def test_a_wrong_key_is_refused_in_openai_shape_and_only_its_fingerprint_is_kept():
    async with ScriptedModel(required_key="right-key") as model, httpx.AsyncClient() as client:
        with pytest.raises(litellm.AuthenticationError):
            await ask(model, [{"role": "user", "content": "hello"}], num_retries=0)
        refused = await client.get(f"{model.base_url}/models")
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
        listed = await client.get(f"{model.base_url}/models", headers={"Authorization": "Bearer right-key"})
        assert [entry["id"] for entry in listed.json()["data"]] == ["scripted"]
        assert len(model.requests) == 3
        assert len({request.key_fingerprint for request in model.requests}) == 3
        assert "k-1" not in repr(model.requests)


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, litellm.AuthenticationError), (429, litellm.RateLimitError), (500, litellm.InternalServerError)],
)
async def test_a_status_step_becomes_the_error_litellm_knows(status, error):
    async with ScriptedModel() as model:
        with pytest.raises(error, match="no luck"):
            await ask(model, [user({"status": status, "error": "no luck"})], num_retries=0, max_retries=0)


async def test_a_step_may_fail_a_few_times_and_then_answer():
    async with ScriptedModel() as model:
        chat = [user({"status": 429, "times": 1, "text": "at last"})]
        with pytest.raises(litellm.RateLimitError):
            await ask(model, chat, num_retries=0, max_retries=0)
        assert (await ask(model, chat)).choices[0].message.content == "at last"


async def test_a_sleeping_step_waits_but_not_past_the_end_of_the_server():
    async with ScriptedModel() as model:
        began = time.monotonic()
        await ask(model, [user({"sleep": 0.3, "text": "late"})])
        assert time.monotonic() - began >= 0.3
        pending = asyncio.ensure_future(ask(model, [user({"sleep": 600, "text": "never"})], max_retries=0))
        await seen(model, 2)
        began = time.monotonic()
    assert time.monotonic() - began < 60
    assert (await pending).choices[0].message.content == "never"


async def test_the_model_remembers_what_it_was_asked_but_no_texts():
    async with ScriptedModel() as model:
        await ask(model, [{"role": "user", "content": "a very private text"}], tools=TOOLS)
        last = model.requests[-1]
        assert (last.method, last.model, last.messages, last.tools) == ("POST", "scripted", 1, ("terminal",))
        assert "private" not in repr(last)


async def test_bad_requests_and_bad_scripts_are_named():
    async with ScriptedModel() as model, httpx.AsyncClient() as client:
        url = f"{model.base_url}/chat/completions"
        missing = await client.post(url, json={"model": "scripted"})
        assert missing.status_code == 400
        assert "messages" in missing.json()["error"]["message"]
        chat = [{"role": "user", "content": 'SCRIPT:[{"tool": "a", "typo": 1}]'}]
        bad = await client.post(url, json={"model": "scripted", "messages": chat})
        assert bad.status_code == 400
        assert "0.typo" in bad.json()["error"]["message"]
    with pytest.raises(BadScript, match="needs one of"):
        write_script([{"sleep": 1}])


async def test_alone_it_prints_where_it_listens_and_ends_on_a_signal():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "orchestrator.demo.model_server", "--required-key-env", "MODEL_KEY",
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "MODEL_KEY": "k-2"},
    )  # fmt: skip
    line = await asyncio.wait_for(process.stdout.readline(), 30)
    async with httpx.AsyncClient(base_url=json.loads(line)["base_url"]) as client:
        assert (await client.get("/models", headers={"Authorization": "Bearer k-2"})).status_code == 200
        assert (await client.get("/models")).status_code == 401
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 30) == 0
