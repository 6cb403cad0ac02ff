"""What a runtime printed: as it comes, and when it is gone."""

from contextlib import aclosing

import anyio
import pytest
from support.orchestrators import Nestor

from orchestrator.domain.conversation import Conversation
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.services import log_following
from orchestrator.services.log_following import follow, news

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("removed", [False, True], ids=["seen", "removed before the next look"])
async def test_lines_come_as_they_are_printed_without_secrets_and_end_with_the_runtime(
    nestor: Nestor, monkeypatch: pytest.MonkeyPatch, removed: bool
) -> None:
    monkeypatch.setattr(log_following, "LOOK_SECONDS", 0.02)
    tenant, key = await nestor.tenant()
    model = {"agent_settings": {"llm": {"model": "openai/x", "api_key": "sk-value-that-is-told"}}}
    await nestor.call("PATCH", "/api/v2/settings", key, json=model, status=200)
    made = await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=60", key, json={}, status=200)
    [runtime] = nestor.engine.runtimes.values()
    runtime.log.clear()
    runtime.log.extend(["one", "two"])

    async def load() -> Conversation:
        return await nestor.house.services.conversations.get(TenantId(tenant), None, ConversationId(made["id"]))

    got: list[str] = []
    with anyio.fail_after(60):
        async with aclosing(follow(nestor.house.services.inspection, load, lines=1)) as said:
            async for one in said:
                got += one.lines
                assert not one.gap
                if got == ["two"]:
                    runtime.log.append("three sk-value-that-is-told")
                elif got[-1:] == ["three **********"] and runtime.alive:
                    runtime.log.append("last words")
                    nestor.engine.crash(runtime.spec.name)
                    if removed:
                        await nestor.until(key, made["id"], "failed", "ready", seconds=60)
    assert got == ["two", "three **********", "last words", "fake runtime: ended with -9"]
    assert one.over
    await nestor.until(key, made["id"], "failed", "ready", seconds=60)
    path = f"/api/v2/conversations/{made['id']}/logs"
    dead = await nestor.call("GET", f"{path}?lines=2", key, status=200)
    assert dead == {"lines": ["last words", "fake runtime: ended with -9"], "live": False}
    refused = await nestor.call("GET", f"{path}?follow=true", key, status=409)
    assert refused["code"] == "conflict"


async def test_a_follower_over_http_is_told_the_end(nestor: Nestor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_following, "LOOK_SECONDS", 0.02)
    key = await nestor.ready_tenant()
    made = await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=60", key, json={}, status=200)
    [runtime] = nestor.engine.runtimes.values()
    runtime.log.clear()
    runtime.log.append("said")
    path = f"/api/v2/conversations/{made['id']}"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(nestor.call, "POST", f"{path}/stop", key)
        answer = await nestor.http.get(f"{path}/logs?follow=true", headers=nestor.as_(key), timeout=60)
    if answer.status_code == 200:  # else the stop was faster
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.text.startswith('event: lines\ndata: {"lines": ["said"], "gap": false}\n\n')
        assert answer.text.endswith("event: end\ndata: {}\n\n")


async def test_of_one_that_was_stopped_the_end_is_kept_without_what_it_was_told(nestor: Nestor) -> None:
    _, key = await nestor.tenant()
    model = {"agent_settings": {"llm": {"model": "openai/x", "api_key": "sk-value-that-is-told"}}}
    await nestor.call("PATCH", "/api/v2/settings", key, json=model, status=200)
    made = await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=60", key, json={}, status=200)
    [runtime] = nestor.engine.runtimes.values()
    runtime.log.clear()
    runtime.log.extend([*map(str, range(30)), "sk-value-that-is-told"])
    path = f"/api/v2/conversations/{made['id']}"
    await nestor.call("POST", f"{path}/stop", key, status=202)
    stopped = await nestor.until(key, made["id"], "stopped", seconds=60)
    kept = [*map(str, range(11, 30)), "**********"]
    assert (stopped["reason"], stopped["log_tail"]) == ("requested", kept)
    assert await nestor.call("GET", f"{path}/logs?lines=2", key, status=200) == {"lines": kept[-2:], "live": False}
    assert (await nestor.call("GET", f"{path}/logs", key, status=200))["lines"] == kept
    await nestor.call("POST", f"{path}/start?wait=ready&timeout=60", key, status=200)
    again = await nestor.call("GET", f"{path}/logs", key, status=200)
    assert again["live"]
    assert not set(kept) & set(again["lines"])


def test_news_are_what_a_later_look_has_more() -> None:
    assert news([], ["a"]) == (["a"], False)
    assert news(["a", "b"], ["a", "b"]) == ([], False)
    assert news(["a", "b"], ["b", "c"]) == (["c"], False)
    assert news(["a", "a"], ["a", "a", "a"]) == (["a"], False)
    assert news(["a", "b"], ["c", "d"]) == (["c", "d"], True)
