"""A title is the first line at once, and a model's where a profile is named: beside the run, whatever goes wrong."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from orchestrator.demo.model_server import ScriptedModel
from orchestrator.demo.script import Step
from tests.support.receivers import webhook_receiver
from tests.support.runtimes import Runtime, message, runtime_at

pytestmark = pytest.mark.anyio
SECRET = "a-value-of-the-conversation-73c1"


@pytest.fixture
async def runtime(tmp_path: Path, model: ScriptedModel) -> AsyncIterator[Runtime]:
    async with runtime_at(tmp_path, model.base_url) as made:
        saved = await made.http.post("/api/profiles/namer", json={"llm": made.llm(model="openai/namer")})
        assert saved.status_code < 300, saved.text
        yield made


async def shown(runtime: Runtime, id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await runtime.http.get(f"/api/conversations/{id}")).json()
    return found


async def until_title(runtime: Runtime, id: str, wanted: str) -> dict[str, Any]:
    for _ in range(1800):  # the first call of a model imports the library
        if (found := await shown(runtime, id))["title"] == wanted:
            return found
        await anyio.sleep(0.05)
    raise AssertionError(found["title"])


async def test_the_model_of_the_profile_makes_it(runtime: Runtime, model: ScriptedModel) -> None:
    model.asides.append(Step(text=f'  "Fixing the {SECRET} parser"\nand more'))
    id = await runtime.start([{"text": "done"}], title_llm_profile="namer", secrets={"A": SECRET})
    found = await until_title(runtime, id, "Fixing the <secret-hidden> parser")
    await runtime.finish(id)
    assert "namer" in {seen.model for seen in model.requests}
    usage = (await shown(runtime, id))["stats"]["usage_to_metrics"]
    assert usage["title-llm"]["accumulated_token_usage"]["prompt_tokens"] > 0
    assert usage["title-llm"]["model_name"] == "openai/namer"
    assert found["updated_at"] >= found["created_at"]
    await runtime.say(id, [{"text": "again"}])
    await runtime.finish(id)
    assert len([seen for seen in model.requests if seen.model == "namer"]) == 1, "the first message makes it, no other"


async def test_nothing_waits_for_it_and_the_log_does_not_know_of_it(runtime: Runtime, model: ScriptedModel) -> None:
    plain = await runtime.start([{"text": "done"}])
    await runtime.finish(plain)
    model.asides.append(Step(text="Late", sleep=3))
    id = await runtime.start([{"text": "done"}], title_llm_profile="namer")
    await runtime.finish(id)
    assert (await shown(runtime, id))["title"].startswith("SCRIPT:"), "until then it is the first line"
    await until_title(runtime, id, "Late")

    async def told(id: str) -> list[tuple[str, Any]]:
        return [(event["kind"], event.get("key")) for event in await runtime.events(id)]

    assert await told(id) == await told(plain)


@pytest.mark.parametrize("wrong", ["refused", "empty", "no such profile"])
async def test_what_goes_wrong_leaves_the_first_line(runtime: Runtime, model: ScriptedModel, wrong: str) -> None:
    profile = "nobody" if wrong == "no such profile" else "namer"
    model.asides.append(Step(status=401, error="no") if wrong == "refused" else Step(text=' "" \n'))
    id = await runtime.start([{"text": "done"}], title_llm_profile=profile)
    await runtime.finish(id)
    with anyio.fail_after(20):
        while profile == "namer" and not any(seen.model == "namer" for seen in model.requests):
            await anyio.sleep(0.02)
    await anyio.sleep(0.3)
    assert (await shown(runtime, id))["title"].startswith("SCRIPT:")


async def test_a_title_that_somebody_gives_wins(runtime: Runtime, model: ScriptedModel) -> None:
    model.asides.append(Step(text="Of the model", sleep=1))
    id = await runtime.start([{"text": "done"}], title_llm_profile="namer")
    with anyio.fail_after(20):
        while not any(seen.model == "namer" for seen in model.requests):
            await anyio.sleep(0.02)
    assert (await runtime.http.patch(f"/api/conversations/{id}", json={"title": "Mine"})).status_code == 200
    await runtime.finish(id)
    await anyio.sleep(1.5)
    assert (await shown(runtime, id))["title"] == "Mine"
    assert model.asides == type(model.asides)()


async def test_none_is_made_where_none_is_wanted(runtime: Runtime, model: ScriptedModel) -> None:
    id = await runtime.start([{"text": "done"}], title_llm_profile="namer", autotitle=False)
    await runtime.finish(id)
    await runtime.say(id, [{"text": "again"}])
    await runtime.finish(id)
    child = await runtime.http.post(f"/api/conversations/{id}/children", json={"task": "a part", "isolation": "shared"})
    assert child.status_code == 201, child.text
    await runtime.until(child.json()["conversation_id"])
    for one in (id, child.json()["conversation_id"]):
        assert (await shown(runtime, one))["title"] is None
    assert not any(seen.model == "namer" for seen in model.requests)


async def test_it_survives_a_restart_and_none_is_made_after_one(tmp_path: Path, model: ScriptedModel) -> None:
    async with runtime_at(tmp_path, model.base_url) as runtime:
        await runtime.http.post("/api/profiles/namer", json={"llm": runtime.llm(model="openai/namer")})
        model.asides.append(Step(text="Kept"))
        kept = await runtime.start([{"text": "done"}], title_llm_profile="namer")
        none = await runtime.start([{"text": "done"}], autotitle=False)
        await runtime.finish(none)
        await until_title(runtime, kept, "Kept")
    async with runtime_at(tmp_path, model.base_url) as runtime:
        assert (await shown(runtime, kept))["title"] == "Kept"
        assert (await shown(runtime, none))["title"] is None
        await runtime.say(none, [{"text": "done"}])
        await runtime.finish(none)
        assert (await shown(runtime, none))["title"] is None


async def test_a_value_that_the_title_cuts_is_hidden(runtime: Runtime) -> None:
    text = f"{'x' * 50} {SECRET} and then"
    made = await runtime.http.post(
        "/api/conversations", json={**runtime.body(), "secrets": {"A": SECRET}, "initial_message": message(text)}
    )
    await runtime.until(made.json()["id"])
    title = (await shown(runtime, made.json()["id"]))["title"]
    assert SECRET[:6] not in title


async def test_receivers_are_told(tmp_path: Path, model: ScriptedModel) -> None:
    with webhook_receiver() as receiver:
        webhooks = [{"base_url": receiver.url}]
        async with runtime_at(tmp_path, model.base_url, webhooks=webhooks) as runtime:
            await runtime.http.post("/api/profiles/namer", json={"llm": runtime.llm(model="openai/namer")})
            model.asides.append(Step(text="Told", sleep=2))
            id = await runtime.start([{"text": "done"}], title_llm_profile="namer")
            await until_title(runtime, id, "Told")
            with anyio.fail_after(20):
                while not any(
                    post.path.endswith("/conversations") and post.body["title"] == "Told" for post in receiver.posts
                ):
                    await anyio.sleep(0.05)
