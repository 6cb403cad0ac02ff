"""A start through the API: the order of the configuration calls, their bodies, and what a failure of each leaves."""

import anyio
import pytest
from support.orchestrators import Nestor

pytestmark = pytest.mark.anyio


async def configured(nestor: Nestor) -> str:
    key = await nestor.ready_tenant()
    provider = {"token": "ghp_token_of_the_tests", "host": "http://127.0.0.1:9", "user_id": "7"}
    await nestor.call("PUT", "/api/v2/git-providers/github", key, json=provider, status=200)
    await nestor.call("PUT", "/api/v2/secrets/DEPLOY_KEY", key, json={"value": "deploy-value"}, status=200)
    return key


async def test_configuration_is_pushed_in_order_and_then_the_conversation(nestor: Nestor) -> None:
    key = await configured(nestor)
    body = {"initial_message": "hello", "secrets": {"ONLY_HERE": "here"}}
    accepted = await nestor.call("POST", "/api/v2/conversations", key, json=body, status=202)
    assert (accepted["phase"], accepted["status"]) == ("pending", "starting")
    record = await nestor.until(key, accepted["id"], "ready", "failed")
    assert record["phase"] == "ready", record

    posts = [(path, body) for path, body in nestor.engine.script.posts() if path != "/api/init"]
    assert [path for path, _ in posts] == [
        "/api/settings",
        "/api/add-git-providers",
        "/api/secrets",
        "/api/settings/digests",
        "/api/conversations",
    ]
    settings, providers, secrets, digests, conversation = (body for _, body in posts)
    assert settings == {
        "agent": "CodeActAgent",
        "llm_model": "openai/scripted",
        "llm_api_key": "sk-model-key-of-the-tests",
    }
    github = {"token": "ghp_token_of_the_tests", "host": "http://127.0.0.1:9", "user_id": "7"}
    assert providers == {"provider_tokens": {"github": github}}
    assert secrets == {"secrets": {"DEPLOY_KEY": "deploy-value", "ONLY_HERE": "here"}}
    assert (digests["git_providers"], digests["secrets"]) == (["github"], ["DEPLOY_KEY", "ONLY_HERE"])
    assert conversation == {"conversation_id": accepted["id"], "initial_user_msg": "hello"}

    operation = await nestor.ended(key, record["operation"])
    assert operation["state"] == "succeeded"
    assert [stage["name"] for stage in operation["stages"]] == [
        "volume", "create", "start", "alive", "init", "settings", "providers", "secrets", "converse", "publish",
    ]  # fmt: skip
    assert all(stage["state"] == "succeeded" and stage["seconds"] is not None for stage in operation["stages"])


@pytest.mark.parametrize(
    ("path", "step"),
    [("/api/settings", "settings"), ("/api/add-git-providers", "providers"), ("/api/secrets", "secrets")],
)
async def test_a_500_on_a_configuration_call_aborts_the_start(nestor: Nestor, path: str, step: str) -> None:
    key = await configured(nestor)
    nestor.engine.script.fail("POST", path, 500, times=None)
    accepted = await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
    record = await nestor.until(key, accepted["id"], "ready", "failed")

    assert (record["phase"], record["status"], record["step"]) == ("failed", "failed", step)
    assert record["reason"] == "config_rejected"
    assert f"POST {path} was answered 500" in record["message"]
    assert record["hint"]
    assert record["retryable"] is True
    assert nestor.engine.runtimes == {}, "the runtime is destroyed"
    assert nestor.engine.volumes == {}, "a conversation that was never ready has no workspace to keep"
    operation = await nestor.ended(key, record["operation"])
    assert operation["state"] == "failed"
    assert {stage["name"]: stage["state"] for stage in operation["stages"]}[step] == "failed"


async def test_a_failed_conversation_starts_again_when_asked(nestor: Nestor) -> None:
    key = await configured(nestor)
    nestor.engine.script.fail("POST", "/api/secrets", 500, times=1)
    accepted = await nestor.call("POST", "/api/v2/conversations", key, json={"initial_message": "hi"}, status=202)
    failed = await nestor.until(key, accepted["id"], "failed")
    again = await nestor.call("POST", f"/api/v2/conversations/{accepted['id']}/start", key, status=202)
    assert again["operation"] != failed["operation"]
    ready = await nestor.until(key, accepted["id"], "ready")
    assert ready["runtime"]["generation"] > failed["runtime"]["generation"]


async def test_a_runtime_that_ends_at_once_is_told_with_its_last_lines(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    nestor.engine.script.die("GET", "/api/init", times=None)
    accepted = await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
    record = await nestor.until(key, accepted["id"], "failed")
    assert (record["step"], record["reason"]) == ("alive", "image_start")
    assert record["log_tail"]


async def test_the_same_id_joins_the_start_under_way(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    body = {"id": "7d9f0f2f5f1e4a3c8d3b2a1908f7e6d5"}
    first = await nestor.call("POST", "/api/v2/conversations", key, json=body, status=202)
    second = await nestor.call("POST", "/api/v2/conversations", key, json=body, status=202)
    assert first["id"] == second["id"] == "7d9f0f2f-5f1e-4a3c-8d3b-2a1908f7e6d5"
    assert first["operation"] == second["operation"]
    await nestor.until(key, first["id"], "ready")
    assert len(nestor.engine.runtimes) == 1


async def test_an_idempotency_key_replays_the_first_answer(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    headers = nestor.as_(key) | {"Idempotency-Key": "k-1"}
    first = await nestor.http.post("/api/v2/conversations", headers=headers, json={"title": "one"})
    second = await nestor.http.post("/api/v2/conversations", headers=headers, json={"title": "one"})
    other = await nestor.http.post("/api/v2/conversations", headers=headers, json={"title": "two"})
    assert (first.status_code, second.status_code, other.status_code) == (202, 202, 422)
    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers


async def test_a_key_whose_first_request_died_still_means_the_same_conversation(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    headers = nestor.as_(key) | {"Idempotency-Key": "k-2"}
    nestor.engine.script.hang("POST", "/api/settings", times=1)
    async with anyio.create_task_group() as tasks:

        async def first() -> None:
            await nestor.http.post("/api/v2/conversations?wait=ready&timeout=60", headers=headers, json={})

        tasks.start_soon(first)
        with anyio.fail_after(10):
            while not (items := (await nestor.call("GET", "/api/v2/conversations", key))["items"]):
                await anyio.sleep(0.02)
        repeated = await nestor.http.post("/api/v2/conversations", headers=headers, json={})
        again = await nestor.http.post(
            "/api/v2/conversations?wait=ready&timeout=60", headers=headers, json={"title": "x"}
        )
        assert again.status_code == 422
        tasks.cancel_scope.cancel()  # the caller is gone, and with it the answer that would have been kept
    assert (repeated.status_code, repeated.json()["id"]) == (202, items[0]["id"])
    after = await nestor.http.post("/api/v2/conversations?wait=ready&timeout=60", headers=headers, json={})
    assert after.json()["id"] == items[0]["id"]
    assert len((await nestor.call("GET", "/api/v2/conversations", key))["items"]) == 1


async def test_messages_under_one_key_are_one_message(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    id = (await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202))["id"]
    path = f"/api/v2/conversations/{id}/messages"
    headers = nestor.as_(key) | {"Idempotency-Key": "k-3"}
    first = (await nestor.http.post(path, headers=headers, json={"content": "hello"})).json()
    other = (
        await nestor.http.post(path, headers=headers | {"Idempotency-Key": "k-4"}, json={"content": "hello"})
    ).json()
    assert first["id"] != other["id"]
    assert (await nestor.http.post(path, headers=headers, json={"content": "hello"})).json()["id"] == first["id"]


async def test_wait_answers_when_it_is_ready_and_408_when_the_time_is_over(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=20", key, json={}, status=200)
    assert record["phase"] == "ready"
    assert record["runtime"]["session_key"]
    nestor.engine.script.hang("POST", "/api/settings", times=1)
    problem = await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=0.2", key, json={}, status=408)
    assert problem["code"] == "wait_elapsed"


async def test_a_repeat_of_one_that_waited_in_vain_waits_for_the_same_start(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    released = nestor.engine.hang("start")
    path, headers = "/api/v2/conversations?wait=ready&timeout=2", {"Idempotency-Key": "k-5"}
    problem = await nestor.call("POST", path, key, json={}, headers=headers, status=408)
    await nestor.call("POST", path, key, json={"title": "another"}, headers=headers, status=422)
    released.set()
    await nestor.until(key, problem["conversation"], "ready", seconds=60)
    record = await nestor.call("POST", path, key, json={}, headers=headers, status=200)
    assert (record["id"], record["operation"]) == (problem["conversation"], problem["operation"])


async def test_whoever_waits_is_told_at_once(nestor: Nestor, monkeypatch: pytest.MonkeyPatch) -> None:
    for rest in ("_SHORTEST_REST", "_LONGEST_REST"):
        monkeypatch.setattr(f"orchestrator.api.acceptance.{rest}", 30.0)
    key = await nestor.ready_tenant()
    with anyio.fail_after(15):
        await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=60", key, json={}, status=200)


async def test_a_runtime_that_repeats_what_it_was_told_is_not_believed_to_be_discreet(nestor: Nestor) -> None:
    key = await configured(nestor)
    said = "no: deploy-value, and in the log as well"
    nestor.engine.script.fail("POST", "/api/secrets", 422, times=None, body={"error": said})
    accepted = await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
    record = await nestor.until(key, accepted["id"], "failed")
    assert "and in the log as well" in record["message"]
    assert "deploy-value" not in str(record)
    operation = await nestor.ended(key, record["operation"])
    assert "deploy-value" not in str(operation)


async def test_its_log_is_read_without_what_it_was_told_also_when_it_was_stopped(nestor: Nestor) -> None:
    key = await configured(nestor)
    made = await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=20", key, json={}, status=200)
    path = f"/api/v2/conversations/{made['id']}"
    [runtime] = nestor.engine.runtimes.values()
    runtime.log.extend(["first", "got deploy-value", "last"])
    told = await nestor.call("GET", f"{path}/logs?lines=2", key, status=200)
    assert told == {"lines": ["got **********", "last"], "live": True}
    await nestor.call("GET", f"{path}/logs?lines=0", key, status=422)
    told = await nestor.call("GET", f"{path}/usage", key, status=409)
    assert told["code"] == "conflict"
    assert "does not measure" in told["detail"]
    other = await nestor.ready_tenant()
    for what in ("logs", "usage"):
        await nestor.call("GET", f"{path}/{what}", other, status=404)
    await nestor.call("POST", f"{path}/stop", key, status=202)
    await nestor.until(key, made["id"], "stopped")
    told = await nestor.call("GET", f"{path}/logs", key, status=200)
    assert (told["lines"][-2:], told["live"]) == (["got **********", "last"], False)


async def test_every_call_of_a_start_carries_fence_and_generation(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=20", key, json={}, status=200)
    sent = [one for one in nestor.engine.script.received if one.method == "POST"]
    assert sent
    assert {one.headers.get("x-generation") for one in sent} == {str(record["runtime"]["generation"])}
    assert all(int(one.headers["x-fence"]) >= record["runtime"]["generation"] for one in sent)


async def test_the_inner_key_is_not_sent_before_the_runtime_has_proved_itself(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=20", key, json={}, status=200)
    asked = [one for one in nestor.engine.script.received if (one.method, one.path) == ("GET", "/api/init")]
    assert asked
    assert all("x-session-api-key" not in one.headers for one in asked)
