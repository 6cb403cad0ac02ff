"""Secrets reach the commands that name them and nothing else."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from orchestrator.demo.loopback import serving
from orchestrator.demo.model_server import ScriptedModel
from runtime.secrets import sources
from tests.support.runtimes import KEY, MODEL_KEY, SECRET_KEY, Runtime, runtime_at, terminal

pytestmark = pytest.mark.anyio

STATIC, STORED, REMOTE = "value-static-1234", "value-stored-1234", "value-remote-1234"


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with (
        ScriptedModel(required_key=MODEL_KEY) as model,
        runtime_at(tmp_path, model.base_url, lookup_secret_hosts=("127.0.0.1",)) as made,
    ):
        body = {"name": "STORED", "value": STORED, "description": "a stored one"}
        assert (await made.http.put("/api/settings/secrets", json=body)).status_code == 200
        yield made


async def test_each_kind_of_secret_is_there_when_named_and_hidden_in_what_leaves(runtime: Runtime) -> None:
    own = f"{runtime.url}/api/settings/secrets/"
    secrets: dict[str, Any] = {
        "PLAIN": {"kind": "StaticSecret", "value": STATIC, "description": "given"},
        "STORED": {"kind": "LookupSecret", "url": f"{own}STORED", "headers": {"X-Session-API-Key": KEY}},
        "MISSING": {"kind": "LookupSecret", "url": f"{own}NOBODY"},
    }
    encoded = base64.b64encode(STORED.encode()).decode()
    script = [
        terminal("echo ${PLAIN} $STORED [$MISSING]; env | grep -c -e ^PLAIN= -e ^STORED= -e ^MISSING="),
        terminal('env | grep -c value-; test -z "$OTHER" && echo none'),
        terminal('printf %s "$STORED" | base64'),
        terminal("echo $STORED > kept; echo done"),
        {"tool": "file_editor", "args": {"command": "view", "path": str(runtime.folder / "work" / "kept")}},
        terminal("cat kept; cat absent-$PLAIN"),
        {"tool": "finish", "args": {"message": f"it was {STATIC}"}},
    ]
    id = await runtime.start(script, secrets=secrets)
    await runtime.finish(id)
    outputs = await runtime.outputs(id)
    assert outputs[0] == "<secret-hidden> <secret-hidden> []\n3"
    assert outputs[1] == "0\nnone"
    assert (outputs[2], encoded[:8] in outputs[2]) == ("<secret-hidden>", False)
    assert "<secret-hidden>" in outputs[4]
    assert outputs[5].count("<secret-hidden>") == 2
    log = json.dumps([event for event in await runtime.events(id) if event.get("source") != "user"])
    info = (await runtime.http.get(f"/api/conversations/{id}")).text
    for value in (STATIC, STORED, MODEL_KEY, KEY):
        assert value not in log
        assert value not in info
    folder = runtime.folder / "conversations"
    for file in folder.rglob("*"):
        if file.is_file() and file.name != "events.jsonl":
            content = file.read_bytes()
            assert not any(value.encode() in content for value in (STATIC, STORED, MODEL_KEY, KEY)), file
    sources = json.loads(info)["secret_registry"]["secret_sources"]
    assert sources["PLAIN"] == {"description": "given", "value": None, "kind": "StaticSecret"}
    assert sources["STORED"]["headers"] == {}


async def test_the_servers_own_keys_and_those_of_its_receivers_are_hidden_too(tmp_path: Path) -> None:
    earlier, receivers = "sealing-key-of-another-day", "bearer-of-a-receiver-1234"
    held = {"OWN": KEY, "SEALING": SECRET_KEY, "EARLIER": earlier, "RECEIVER": receivers}
    hook = {"base_url": "http://127.0.0.1:9/", "headers": {"Authorization": f"Bearer {receivers}"}}
    configured: dict[str, Any] = {"previous_secret_keys": (earlier, "short"), "webhooks": (hook,)}
    # Letter by letter, as somebody would who has found them: the texts of the commands hold none.
    turned = {name: "".join(f"\\x{ord(letter):02x}" for letter in value) for name, value in held.items()}
    command = "; ".join(f"printf '{text}\\n'; printf '{text}' | base64" for text in turned.values()) + "; echo short"
    async with (
        ScriptedModel(required_key=MODEL_KEY) as model,
        runtime_at(tmp_path, model.base_url, **configured) as runtime,
    ):
        id = await runtime.start([terminal(command)])
        await runtime.finish(id)
        (output,) = await runtime.outputs(id)
        by_api = await runtime.http.post("/api/bash/execute_bash_command", json={"command": command})
    for shown in (output, by_api.json()["stdout"]):
        assert shown.split() == ["<secret-hidden>"] * 8 + ["short"]


async def test_secrets_can_be_added_later_in_three_forms_and_live_through_a_restart(
    tmp_path: Path, runtime: Runtime
) -> None:
    id = await runtime.start()
    update = {
        "A_KEY": "plain-a-value",
        "B_KEY": {"value": "plain-b-value"},
        "C_KEY": {"kind": "StaticSecret", "value": "cc-c"},
    }
    assert (await runtime.http.post(f"/api/conversations/{id}/secrets", json={"secrets": update})).json() == {
        "success": True
    }
    for wrong in ({"A": 5}, {"1A": "x"}, {"A": {"kind": "Other"}}):
        answer = await runtime.http.post(f"/api/conversations/{id}/secrets", json={"secrets": wrong})
        assert answer.status_code == 422
        assert "input" not in answer.json()["detail"][0]
    command = 'echo "$A_KEY,$B_KEY,$C_KEY" | tr a-z A-Z'
    await runtime.say(id, [terminal(command)])
    await runtime.until(id)
    assert await runtime.outputs(id) == ["PLAIN-A-VALUE,PLAIN-B-VALUE,CC-C"]


async def test_lookups_on_other_hosts_are_bounded(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LOOKUP_SECONDS", 1.0)
    seen: list[str] = []

    async def drops() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await anyio.sleep(0.1)

    async def answer(request: Request) -> Response:
        seen.append(request.headers.get("x-key", ""))
        match request.path_params["name"]:
            case "good":
                return PlainTextResponse(REMOTE)
            case "large":
                return PlainTextResponse("x" * 70_000)
            case "moved":
                return RedirectResponse("/good")
            case "endless":
                return StreamingResponse(drops())
            case _:
                return Response(b"\xff\xfe", 200)

    app = Starlette(routes=[Route("/{name}", answer)])
    async with serving(app, host="127.0.0.1", port=0) as origin:
        names = ("good", "large", "moved", "binary", "endless")
        secrets = {
            name.upper(): {"kind": "LookupSecret", "url": f"{origin}/{name}", "headers": {"X-Key": "header-value-1"}}
            for name in names
        }
        id = await runtime.start([terminal('echo "[$GOOD][$LARGE][$MOVED][$BINARY][$ENDLESS]"')], secrets=secrets)
        await runtime.finish(id)
    assert await runtime.outputs(id) == ["[<secret-hidden>][][][][]"]
    assert seen == ["header-value-1"] * 5


async def test_a_host_that_nobody_named_is_not_asked(tmp_path: Path) -> None:
    seen: list[str] = []

    async def answer(request: Request) -> Response:
        seen.append(request.url.path)
        return PlainTextResponse(REMOTE)

    async with (
        serving(Starlette(routes=[Route("/good", answer)]), host="127.0.0.1", port=0) as origin,
        ScriptedModel(required_key=MODEL_KEY) as model,
        runtime_at(tmp_path, model.base_url) as runtime,
    ):
        secrets = {"GOOD": {"kind": "LookupSecret", "url": f"{origin}/good"}}
        id = await runtime.start([terminal('echo "[$GOOD]"')], secrets=secrets)
        await runtime.finish(id)
        assert await runtime.outputs(id) == ["[]"]
    assert seen == []


async def test_encrypted_values_are_opened_and_unreadable_ones_refused(runtime: Runtime) -> None:
    await runtime.http.patch("/api/settings", json={"agent_settings_diff": {"llm": {"api_key": MODEL_KEY}}})
    exposed = (await runtime.http.get("/api/settings", headers={"X-Expose-Secrets": "encrypted"})).json()
    token = exposed["agent_settings"]["llm"]["api_key"]
    assert token.startswith("gAAAAA")
    script = [terminal('test "$S" = plain-text-value && echo same')]
    secrets = {"S": {"kind": "StaticSecret", "value": "plain-text-value"}}
    id = await runtime.start(script, llm={"api_key": token}, secrets=secrets, secrets_encrypted=True)
    await runtime.finish(id)
    assert await runtime.outputs(id) == ["same"]
    broken = runtime.body(llm={"api_key": token[:-4] + "AAAA"}, secrets_encrypted=True)
    refused = await runtime.http.post("/api/conversations", json=broken)
    assert refused.status_code == 422
    assert token[:20] not in refused.text


async def test_commands_of_callers_do_not_show_what_a_conversation_was_given(tmp_path: Path) -> None:
    own, key = "value-of-a-conversation-1234", "sk-of-a-conversation-1234"
    command = {"command": f"echo {own}; printf %s {key} | base64"}

    async def shown(runtime: Runtime, id: str) -> list[str]:
        found = []
        for place in ("/api", f"/api/conversations/{id}"):
            answer = await runtime.http.post(f"{place}/bash/execute_bash_command", json=command)
            assert answer.status_code == 200, answer.text
            found.append(answer.json()["stdout"])
        return found

    async with runtime_at(tmp_path) as runtime:
        id = await runtime.start(secrets={"OWN": own}, llm={"api_key": key})
        assert await shown(runtime, id) == ["<secret-hidden>\n<secret-hidden>\n"] * 2
        command["command"] += "; echo value-that-comes-later-1234"
        added = {"secrets": {"LATER": "value-that-comes-later-1234"}}
        assert (await runtime.http.post(f"/api/conversations/{id}/secrets", json=added)).status_code == 200
        assert await shown(runtime, id) == ["<secret-hidden>\n<secret-hidden>\n<secret-hidden>\n"] * 2
    async with runtime_at(tmp_path) as runtime:
        assert await shown(runtime, id) == ["<secret-hidden>\n<secret-hidden>\n<secret-hidden>\n"] * 2


async def test_a_word_in_the_place_of_a_key_spoils_no_output_and_a_declared_secret_is_hidden(tmp_path: Path) -> None:
    """Of a model that asks for no key, "ollama" is one; whoever declares a PIN wants it hidden."""
    async with runtime_at(tmp_path) as runtime:
        context = {"secrets": {"PIN": "4711"}}
        sent = runtime.body(llm={"api_key": "ollama"}, secrets={"WORD": "hush", "LETTER": "e"})
        sent["agent"] |= {"agent_context": context, "mcp_config": {"s": {"command": "x", "env": {"DEBUG": "1"}}}}
        sent["agent"]["condenser"] = {"kind": "LLMSummarizingCondenser", "llm": runtime.llm(api_key="k")}
        made = await runtime.http.post("/api/conversations", json=sent)
        assert made.status_code == 201, made.text
        command = {"command": "echo k e 1 ollama; echo hush 4711"}
        answer = await runtime.http.post("/api/bash/execute_bash_command", json=command)
        assert answer.json()["stdout"] == "k e 1 ollama\n<secret-hidden> <secret-hidden>\n"
