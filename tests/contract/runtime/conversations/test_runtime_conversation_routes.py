"""Routes of a conversation and what they refuse (contract 4, 4.3, 4.5), where no other test of this room has them."""

import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest

from orchestrator.demo.model_server import ScriptedModel
from orchestrator.demo.script import Step
from tests.support.runtimes import Runtime, message

pytestmark = pytest.mark.anyio

UNKNOWN = str(uuid4())
NEEDED = "id execution_status confirmation_policy agent workspace persistence_dir max_iterations stats".split()
#: what is sent to each route that needs a body
ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "", None),
    ("PATCH", "", {}),
    ("DELETE", "", None),
    ("POST", "/run", None),
    ("POST", "/pause", None),
    ("POST", "/interrupt", None),
    ("GET", "/agent_final_response", None),
    ("POST", "/secrets", {"secrets": {"A": "x"}}),
    ("POST", "/confirmation_policy", {"policy": {"kind": "NeverConfirm"}}),
    ("POST", "/security_analyzer", {"security_analyzer": None}),
    ("POST", "/events/respond_to_confirmation", {"accept": True}),
    ("POST", "/ask_agent", {"question": "?"}),
    ("POST", "/condense", None),
    ("POST", "/fork", {}),
    ("POST", "/navigate", {"event_id": None}),
    ("POST", "/load_plugin", {"plugin_ref": "x"}),
    ("POST", "/switch_llm", {"llm": {"model": "openai/other"}}),
    ("POST", "/switch_profile", {"profile_name": "p"}),
    ("POST", "/children", {"task": "t"}),
    ("POST", "/goal", {"objective": "o"}),
    ("POST", "/goal/stop", None),
    ("POST", "/goal/resume", None),
    ("GET", "/runtime", None),
    ("POST", "/runtime/reprovision", None),
    ("POST", "/events", message("x")),
    ("GET", "/events/search", None),
    ("GET", "/events/count", None),
    ("GET", f"/events/{UNKNOWN}", None),
]


async def test_an_unknown_conversation_is_404_and_what_is_no_id_422(runtime: Runtime) -> None:
    await runtime.start()
    for method, rest, sent in ROUTES:
        for id, status in ((UNKNOWN, 404), (UNKNOWN.replace("-", ""), 404), ("no-uuid", 422)):
            answer = await runtime.http.request(method, f"/api/conversations/{id}{rest}", json=sent)
            assert answer.status_code == status, (method, rest, answer.text)
            assert status == 422 or answer.json() == {"detail": "Not Found"}, (method, rest)


async def test_ids_are_taken_with_dashes_and_without_and_told_with_them(runtime: Runtime) -> None:
    id = await runtime.start()
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", id)
    for spelt in (id, id.replace("-", ""), id.upper()):
        shown = await runtime.http.get(f"/api/conversations/{spelt}")
        assert (shown.status_code, shown.json()["id"]) == (200, id)


async def test_what_a_client_needs_is_there_and_not_null(runtime: Runtime) -> None:
    id = await runtime.start()
    shown = (await runtime.http.get(f"/api/conversations/{id}")).json()
    assert [name for name in NEEDED if shown.get(name) is None] == []
    assert shown["agent"]["kind"] == "Agent"
    assert shown["agent"]["llm"]["api_key"] in (None, "**********")
    for name in ("created_at", "updated_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", shown[name])
    assert Path(shown["persistence_dir"]).is_dir()


async def test_titles_are_the_clients_work_as_it_is_in_the_contract(runtime: Runtime) -> None:
    id = await runtime.start()
    assert (await runtime.http.post(f"/api/conversations/{id}/generate_title", json={})).status_code == 404


async def test_a_question_that_gets_no_text_is_500_and_leaves_nothing(runtime: Runtime, model: ScriptedModel) -> None:
    id = await runtime.start([{"text": "x"}])
    await runtime.finish(id)
    before = await runtime.events(id)
    model.asides.append(Step(text=" "))
    answer = await runtime.http.post(f"/api/conversations/{id}/ask_agent", json={"question": "?"})
    assert (answer.status_code, answer.json()["detail"]) == (500, "The model gave no text")
    model.asides.append(Step(text="an answer"))
    answer = await runtime.http.post(f"/api/conversations/{id}/ask_agent", json={"question": "?"})
    assert (answer.status_code, answer.json()) == (200, {"response": "an answer"})
    assert await runtime.events(id) == before


async def test_a_profile_that_is_not_there_is_404(runtime: Runtime) -> None:
    id = await runtime.start()
    answer = await runtime.http.post(f"/api/conversations/{id}/switch_profile", json={"profile_name": "nobody"})
    assert answer.status_code == 404


async def test_conversations_are_sorted_and_found_by_status(runtime: Runtime) -> None:
    first = await runtime.start()
    second = await runtime.start([{"text": "x"}])
    await runtime.finish(second)
    await runtime.http.patch(f"/api/conversations/{first}", json={"title": "now the latest"})

    async def found(**query: str) -> list[str]:
        answer = await runtime.http.get("/api/conversations/search", params=query)
        assert (answer.status_code, set(answer.json())) == (200, {"items", "next_page_id"})
        return [item["id"] for item in answer.json()["items"]]

    assert await found() == await found(sort_order="CREATED_AT_DESC") == [second, first]
    assert await found(sort_order="CREATED_AT") == [first, second]
    assert await found(sort_order="UPDATED_AT") == [second, first]
    assert await found(sort_order="UPDATED_AT_DESC") == [first, second]
    assert await found(status="finished") == [second]
    assert await found(status="stuck") == []
    count = await runtime.http.get("/api/conversations/count", params={"status": "finished"})
    assert (count.status_code, count.json()) == (200, 1)


async def test_no_answer_yet_is_an_empty_one(runtime: Runtime) -> None:
    id = await runtime.start()
    answer = await runtime.http.get(f"/api/conversations/{id}/agent_final_response")
    assert (answer.status_code, answer.json()) == (200, {"response": ""})


async def test_the_runtime_of_a_conversation_in_the_contracts_words(runtime: Runtime) -> None:
    id = await runtime.start()
    shown = (await runtime.http.get(f"/api/conversations/{id}/runtime")).json()
    assert shown == {"runtime_status": "available", "can_resume": False, "runtime_error": None} or set(shown) == {
        "runtime_status",
        "can_resume",
        "runtime_error",
    }
    assert (await runtime.http.get(f"/api/conversations/{id}")).json()["runtime_info"] == shown


async def test_the_server_is_idle_from_the_last_event_on(runtime: Runtime) -> None:
    id = await runtime.start()

    async def times() -> tuple[float, float]:
        found = (await runtime.http.get("/server_info")).json()
        return found["uptime"], found["idle_time"]

    with anyio.fail_after(30):
        while (await times())[0] < 2:
            await anyio.sleep(0.1)
    await runtime.say(id, [{"text": "x"}], run=False)
    uptime, idle = await times()
    assert uptime >= 2 > idle
    assert (uptime, idle) == (int(uptime), int(idle))


async def test_the_model_library_is_imported_when_somebody_says_something(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before: a conversation in which nothing is said stays small."""
    imports = []

    async def warm_up() -> None:
        imports.append("begun")

    monkeypatch.setattr("runtime.conversations.agents.warm_up", warm_up)
    id = await runtime.start()
    assert not imports
    await runtime.say(id, [], run=False)
    await anyio.wait_all_tasks_blocked()
    assert imports == ["begun"]
