"""The start request sentence by sentence (contract 4.1): agent sources, defaults, what is refused and what is kept."""

import base64
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from orchestrator.demo.model_server import ScriptedModel
from tests.support.runtimes import Runtime, message, terminal

pytestmark = pytest.mark.anyio
PIXEL = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


async def start(runtime: Runtime, sent: dict[str, Any], status: int = 201, **more: Any) -> Any:
    answer = await runtime.http.post("/api/conversations", json=sent, **more)
    assert answer.status_code == status, answer.text
    return answer.json()


def record(runtime: Runtime, id: str) -> dict[str, Any]:
    """What is on disk of a conversation."""
    (found,) = (
        json.loads(file.read_text())
        for file in (runtime.folder / "conversations").glob("*/*.json")
        if file.parent.name == id.replace("-", "")
    )
    return dict(found)


def without(sent: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in sent.items() if name not in names}


# -- where the agent comes from


async def test_an_agent_needs_no_kind_and_an_unknown_one_is_told_the_known(runtime: Runtime) -> None:
    sent = runtime.body()
    del sent["agent"]["kind"]
    assert (await start(runtime, sent))["agent"]["kind"] == "Agent"
    (problem,) = (await start(runtime, {**sent, "agent": {**sent["agent"], "kind": "Nobody"}}, 422))["detail"]
    assert (problem["loc"][-1], "'Agent'" in problem["msg"]) == ("kind", True)


async def test_agent_beats_agent_settings_and_without_either_it_is_422(runtime: Runtime) -> None:
    settings = {"agent_kind": "openhands", "llm": runtime.llm(model="openai/of-the-settings")}
    sent = runtime.body()
    assert (await start(runtime, {**sent, "agent_settings": settings}))["agent"]["llm"]["model"] == "openai/scripted"
    made = await start(runtime, {**without(sent, "agent"), "agent_settings": settings})
    assert made["agent"]["llm"]["model"] == "openai/of-the-settings"
    await start(runtime, without(sent, "agent"), 422)


@pytest.mark.parametrize(
    ("condenser", "made"),
    [
        (None, (240, 2, None)),
        ({"max_size": 60, "keep_first": 4, "max_tokens": 9000}, (60, 4, 9000)),
        ({"enabled": False}, None),
        ({"condenser_kind": "no_op"}, None),
    ],
)
async def test_settings_make_an_agent_that_condenses_unless_they_say_otherwise(
    runtime: Runtime, condenser: dict[str, Any] | None, made: tuple[int, int, int | None] | None
) -> None:
    settings = {"agent_kind": "openhands", "llm": runtime.llm(), **({"condenser": condenser} if condenser else {})}
    sent = {**without(runtime.body(), "agent"), "agent_settings": settings}
    found = (await start(runtime, sent))["agent"]["condenser"]
    assert (found and (found["max_size"], found["keep_first"], found["max_tokens"])) == made
    assert found is None or (found["kind"], found["llm"]["usage_id"]) == ("LLMSummarizingCondenser", "condenser")
    assert found is None or not found["llm"].get("api_key")


# -- fields


async def test_what_is_not_said_has_the_contracts_default(runtime: Runtime) -> None:
    made = await start(runtime, runtime.body())
    assert (made["max_iterations"], made["stuck_detection"], made["confirmation_policy"]) == (
        500,
        True,
        {"kind": "NeverConfirm"},
    )
    assert [made[name] for name in ("security_analyzer", "hook_config", "title", "parent_conversation_id")] == [
        None
    ] * 4
    assert [made[name] for name in ("tags", "client_tools", "sub_conversation_ids")] == [{}, [], []]
    assert made["workspace"] == {"working_dir": str(runtime.folder / "work"), "kind": "LocalWorkspace"}
    assert made["secret_registry"] == {"secret_sources": {}}


async def test_the_workspace_is_made_with_a_repository_and_one_inside_another_gets_none(runtime: Runtime) -> None:
    deep = runtime.folder / "new" / "deeper"
    await start(runtime, {**runtime.body(), "workspace": {"working_dir": str(deep)}})
    assert (deep / ".git" / "HEAD").is_file()
    inside = deep / "inside"
    await start(runtime, {**runtime.body(), "workspace": {"working_dir": str(inside)}})
    assert inside.is_dir()
    assert not (inside / ".git").exists()


@pytest.mark.parametrize("place", ["/proc/nothing-can-be-made-here", "/etc/passwd", "/dev/null/x"])
async def test_a_workspace_that_cannot_be_made_is_422_and_leaves_nothing(runtime: Runtime, place: str) -> None:
    await start(runtime, {**runtime.body(), "workspace": {"working_dir": place}}, 422)
    assert (await runtime.http.get("/api/conversations/count")).json() == 0


@pytest.mark.parametrize(
    "policy",
    [
        {"kind": "AlwaysConfirm"},
        {"kind": "ConfirmRisky", "threshold": "MEDIUM", "confirm_unknown": False},
        {"kind": "ConfirmRisky", "threshold": "HIGH", "confirm_unknown": True},
    ],
)
async def test_policies_and_the_analyzer_are_kept_and_shown(runtime: Runtime, policy: dict[str, Any]) -> None:
    analyzer = {"kind": "LLMSecurityAnalyzer"}
    made = await start(runtime, {**runtime.body(), "confirmation_policy": policy, "security_analyzer": analyzer})
    assert (made["confirmation_policy"], made["security_analyzer"]) == (policy, analyzer)


@pytest.mark.parametrize(
    "kind",
    [
        "PatternSecurityAnalyzer",
        "PolicyRailSecurityAnalyzer",
        "EnsembleSecurityAnalyzer",
        "GraySwanAnalyzer",
        "ToolShieldLLMSecurityAnalyzer",
        "default",
    ],
)
async def test_an_analyzer_that_is_not_here_is_refused_by_name_and_never_dropped(runtime: Runtime, kind: str) -> None:
    """To drop one silently would leave acts unjudged that somebody wanted to have judged."""
    (problem,) = (await start(runtime, {**runtime.body(), "security_analyzer": {"kind": kind}}, 422))["detail"]
    assert problem["loc"][:2] == ["body", "security_analyzer"]
    assert "LLMSecurityAnalyzer" in problem["msg"]
    assert (await runtime.http.get("/api/conversations/count")).json() == 0


async def test_modules_of_tools_are_given_back_and_never_imported(runtime: Runtime, tmp_path: Path) -> None:
    trap = {"mine": "tests_would_have_to_import_this", "terminal": "antigravity"}
    made = await start(runtime, {**runtime.body(), "tool_module_qualnames": trap})
    assert made["tool_module_qualnames"] == {
        "file_editor": "openhands.tools.file_editor.definition",
        "task_tracker": "openhands.tools.task_tracker.definition",
        **trap,
    }


@pytest.mark.parametrize("tags", [{"a1": "x" * 256}, {"1": ""}, {}, None])
async def test_tags_by_the_rule(runtime: Runtime, tags: dict[str, str] | None) -> None:
    assert (await start(runtime, {**runtime.body(), "tags": tags}))["tags"] == (tags or {})


async def test_a_parent_must_exist_and_share_the_workspace(runtime: Runtime) -> None:
    parent = (await start(runtime, runtime.body()))["id"]
    made = await start(runtime, {**runtime.body(), "parent_conversation_id": parent})
    assert made["parent_conversation_id"] == parent
    shown = (await runtime.http.get(f"/api/conversations/{parent}")).json()
    assert shown["sub_conversation_ids"] == [made["id"]]
    elsewhere = {"working_dir": str(runtime.folder / "elsewhere")}
    await start(runtime, {**runtime.body(), "parent_conversation_id": parent, "workspace": elsewhere}, 422)
    await start(runtime, {**runtime.body(), "parent_conversation_id": str(uuid4())}, 422)


async def test_a_first_message_may_hold_images(runtime: Runtime, model: ScriptedModel) -> None:
    content = [*message([{"text": "seen"}])["content"], {"type": "image", "image_urls": [PIXEL]}]
    made = await start(runtime, {**runtime.body(), "initial_message": {"role": "user", "content": content}})
    await runtime.finish(made["id"])
    stored = (await runtime.events(made["id"], "MessageEvent"))[0]["llm_message"]["content"]
    assert stored[1] == {"type": "image", "image_urls": [PIXEL], "cache_prompt": False}


async def test_an_existing_id_answers_200_and_ignores_the_rest(runtime: Runtime) -> None:
    id = str(uuid4())
    await start(runtime, {**runtime.body(), "conversation_id": id, "tags": {"a": "1"}})
    again = await start(runtime, {**runtime.body(), "conversation_id": id.replace("-", ""), "tags": {"b": "2"}}, 200)
    assert (again["id"], again["tags"]) == (id, {"a": "1"})


async def test_skills_are_shown_only_to_who_asks(runtime: Runtime) -> None:
    sent = runtime.body()
    sent["agent"]["agent_context"] = {"skills": [{"name": "greet", "content": "Say hello."}]}
    made = await start(runtime, sent)
    path = f"/api/conversations/{made['id']}"
    for found in (
        made,
        (await runtime.http.get(path)).json(),
        (await runtime.http.get("/api/conversations/search")).json()["items"][0],
        (await runtime.http.get("/api/conversations", params={"ids": made["id"]})).json()[0],
    ):
        assert found["agent"]["agent_context"]["skills"] == []
    shown = (await runtime.http.get(path, params={"include_skills": True})).json()
    assert [skill["name"] for skill in shown["agent"]["agent_context"]["skills"]] == ["greet"]


async def test_a_persona_takes_the_place_of_ours_and_a_prompt_the_place_of_all(runtime: Runtime) -> None:
    for agent, wanted, unwanted in (
        ({}, "You are a software engineer", "pirate"),
        ({"persona": "You are a pirate."}, "You are a pirate.\n\nHow to work", "software engineer"),
        ({"persona": "You are a pirate.", "system_prompt": "Only this."}, "Only this.", "pirate"),
    ):
        sent = runtime.body()
        sent["agent"].update(agent)
        id = (await start(runtime, sent))["id"]
        await runtime.say(id, [{"text": "x"}], run=False)
        (prompt,) = await runtime.events(id, "SystemPromptEvent")
        assert prompt["system_prompt"]["text"].startswith(wanted)
        assert unwanted not in prompt["system_prompt"]["text"]


async def test_notes_of_earlier_work_are_told_where_that_is_asked_for(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    lines = "".join(f"note {number}\n" for number in range(1000))
    for root, text in ((tmp_path / "home", "of the user"), (runtime.folder / "work", lines)):
        (root / ".openhands/memory").mkdir(parents=True)
        (root / ".openhands/memory/MEMORY.md").write_text(text)
    for context, wanted in (
        ({"load_memory": True}, True),
        ({}, False),
        ({"memory_context": "as given", "current_datetime": "noon"}, False),
    ):
        sent = runtime.body()
        sent["agent"]["agent_context"] = context
        id = (await start(runtime, sent))["id"]
        await runtime.say(id, [{"text": "x"}], run=False)
        (prompt,) = await runtime.events(id, "SystemPromptEvent")
        told = prompt["dynamic_context"]["text"]
        assert [part in told for part in ("of the user", "left out]\nnote ", "note 999")] == [wanted] * 3
        assert ("note 1\n" in told, "as given" in told) == (False, "memory_context" in context)
        assert ("began at noon" in told) is ("current_datetime" in context)
        assert len(told) < 7000


async def test_a_conversation_from_settings_begins_now(runtime: Runtime) -> None:
    settings = {"llm": runtime.llm(), "agent_context": {"current_datetime": "1999-01-01T00:00:00Z"}}
    made = await start(runtime, {**without(runtime.body(), "agent"), "agent_settings": settings})
    assert made["agent"]["agent_context"]["current_datetime"] > "2020"
    settings["agent_context"] = {"current_datetime": None}
    made = await start(runtime, {**without(runtime.body(), "agent"), "agent_settings": settings})
    assert made["agent"]["agent_context"]["current_datetime"] is None


async def test_additions_go_to_the_agent_wherever_it_came_from(runtime: Runtime) -> None:
    own = {"name": "greet", "content": "of the agent"}
    additions = {
        "system_message_suffix_append": "added text",
        "skills": [{"name": "greet", "content": "added"}, {"name": "part", "content": "added"}],
    }
    sent = runtime.body()
    sent["agent"]["agent_context"] = {"skills": [own], "system_message_suffix": "own text"}
    settings = {"llm": runtime.llm(), "agent_context": {"skills": [own], "system_message_suffix": "own text"}}
    for body in (sent, {**without(sent, "agent"), "agent_settings": settings}):
        params = {"include_skills": True}
        made = await start(runtime, {**body, "agent_launch_additions": additions}, params=params)
        context = made["agent"]["agent_context"]
        assert context["system_message_suffix"] == "own text\n\nadded text"
        assert [(skill["name"], skill["content"]) for skill in context["skills"]] == [
            ("greet", "of the agent"),
            ("part", "added"),
        ]
    bare = await start(runtime, {**runtime.body(), "agent_launch_additions": {"system_message_suffix_append": "alone"}})
    assert bare["agent"]["agent_context"]["system_message_suffix"] == "alone"
    for wrong in ({"more": 1}, {"system_message_suffix_append": "x" * 32_769}, {"llm_profile_ref": "p"}, {"skills": 1}):
        await start(runtime, {**runtime.body(), "agent_launch_additions": wrong}, 422)


@pytest.mark.parametrize("odd", [None, 5, True, [], {}, [[]], {"a": 1}])
async def test_skills_of_odd_forms_are_no_skills(runtime: Runtime, odd: Any) -> None:
    """What a client sends as a skill is kept as it is, whatever it is."""
    skills = [
        {"name": odd, "content": "x"},
        {"name": "named", "content": odd},
        {"name": "called", "content": "found", "trigger": {"type": "keyword", "keywords": odd}, "description": odd},
    ]
    sent = runtime.body(agent_launch_additions={"skills": skills})
    sent["agent"]["agent_context"] = {"skills": skills}
    id = (await start(runtime, sent))["id"]
    await runtime.say(id, [{"text": "done"}])
    await runtime.finish(id)


async def test_a_profile_is_started_with_another_model(runtime: Runtime) -> None:
    for name in ("usual", "other"):
        saved = await runtime.http.post(f"/api/profiles/{name}", json={"llm": runtime.llm(model=f"openai/{name}")})
        assert saved.status_code < 300, saved.text
    answer = await runtime.http.post("/api/agent-profiles/mine", json={"llm_profile_ref": "usual"})
    assert answer.status_code == 201, answer.text
    listed = (await runtime.http.get("/api/agent-profiles")).json()["profiles"]
    sent = {**without(runtime.body(), "agent"), "agent_profile_id": listed[0]["id"]}
    assert (await start(runtime, sent))["agent"]["llm"]["model"] == "openai/usual"
    made = await start(runtime, {**sent, "agent_launch_additions": {"llm_profile_ref": "other"}})
    assert (made["agent"]["llm"]["model"], made["launched_agent_profile"]["llm_profile_ref"]) == (
        "openai/other",
        "other",
    )
    await start(runtime, {**sent, "agent_launch_additions": {"llm_profile_ref": "nobody"}}, 422)


# -- secrets that the agent's definition brings along


async def test_secrets_of_the_agents_context_are_there_for_commands_that_name_them(runtime: Runtime) -> None:
    sent = runtime.body()
    sent["agent"]["agent_context"] = {
        "secrets": {
            "PLAIN_ONE": "plain-context-value",
            "SOURCE_ONE": {"kind": "StaticSecret", "value": "source-value-1"},
        }
    }
    made = await start(runtime, sent)
    await runtime.say(made["id"], [terminal('echo "$PLAIN_ONE,$SOURCE_ONE" | tr a-z A-Z'), {"text": "done"}])
    await runtime.finish(made["id"])
    assert await runtime.outputs(made["id"]) == ["PLAIN-CONTEXT-VALUE,SOURCE-VALUE-1"]
    assert "context-value" not in (await runtime.http.get(f"/api/conversations/{made['id']}")).text


# -- values for traces

TRACE: dict[str, Any] = {
    "observability_span_name": "nightly/run-1",
    "observability_tags": ["a", "b"],
    "observability_metadata": {"team": "core", "tries": 2, "dry": True, "parts": ["x", "y"], "rate": 0.5},
    "observability_parent_span_context": "00-abc-def-01",
}
KEPT = {name.removeprefix("observability_"): value for name, value in TRACE.items()}
PREFIX = "X-OpenHands-Observability-"


async def test_values_for_traces_are_kept_and_said_at_the_end_of_a_run(runtime: Runtime) -> None:
    id = (await start(runtime, {**runtime.body(), **TRACE}))["id"]
    assert record(runtime, id)["observability"] == KEPT
    forked = await runtime.http.post(f"/api/conversations/{id}/fork", json={})
    assert record(runtime, forked.json()["id"])["observability"] == KEPT
    with capture_logs() as lines:
        await runtime.say(id, [{"text": "done"}])
        await runtime.finish(id)
    (line,) = [line for line in lines if line["event"] == "run.ended"]
    assert (line["conversation"], line["status"]) == (id, "finished")
    assert {name.removeprefix("trace_"): value for name, value in line.items() if name.startswith("trace_")} == KEPT


async def test_headers_say_the_same_where_the_body_does_not(runtime: Runtime) -> None:
    headers = {
        f"{PREFIX}Span-Name": "of-the-header",
        f"{PREFIX}Tags": "x, y ,,",
        f"{PREFIX}Metadata": json.dumps({"team": "header", "more": 1}),
        f"{PREFIX}Parent-Span-Context": "of-the-header",
    }
    id = (await start(runtime, runtime.body(), headers=headers))["id"]
    assert record(runtime, id)["observability"] == {
        "span_name": "of-the-header",
        "tags": ["x", "y"],
        "metadata": {"team": "header", "more": 1},
        "parent_span_context": "of-the-header",
    }
    id = (await start(runtime, {**runtime.body(), **TRACE}, headers=headers))["id"]
    assert record(runtime, id)["observability"] == {**KEPT, "metadata": {**KEPT["metadata"], "more": 1}}


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"observability_span_name": "with blanks"}, {}),
        ({"observability_span_name": "x" * 129}, {}),
        ({"observability_tags": [""]}, {}),
        ({"observability_tags": "a"}, {}),
        ({"observability_metadata": {"a": None}}, {}),
        ({"observability_metadata": {"a": {"b": 1}}}, {}),
        ({"observability_metadata": {"a": ["x", 1]}}, {}),
        ({"observability_metadata": [1]}, {}),
        ({"observability_parent_span_context": 5}, {}),
        ({}, {f"{PREFIX}Metadata": "{not json"}),
        ({}, {f"{PREFIX}Metadata": "[1]"}),
        ({}, {f"{PREFIX}Metadata": "[" * 5000}),
        ({}, {f"{PREFIX}Span-Name": "with blanks"}),
    ],
)
async def test_wrong_values_for_traces_are_422(runtime: Runtime, body: dict[str, Any], headers: dict[str, str]) -> None:
    await start(runtime, {**runtime.body(), **body}, 422, headers=headers)


async def test_null_is_the_default(runtime: Runtime) -> None:
    id = (await start(runtime, {**runtime.body(), **dict.fromkeys(TRACE)}))["id"]
    assert record(runtime, id)["observability"] == {
        "span_name": "conversation",
        "tags": [],
        "metadata": {},
        "parent_span_context": None,
    }
