"""The fake runtime answers our own client as the real one does, remembers what it was told, and fails on command."""

import uuid

import anyio
import httpx
import pytest

from orchestrator.domain.conversation import StartRequest
from orchestrator.domain.errors import DriverUnavailable, RuntimeUnreachable
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.fake import FakeDriver
from orchestrator.drivers.values import Condition, ExitCause, Handle, OwnerLabels, RuntimeSpec
from orchestrator.nested import wire
from orchestrator.nested.client import RuntimeClient, RuntimeClients
from orchestrator.nested.refusals import Impostor, Refused

pytestmark = pytest.mark.anyio

INIT = SecretText("init-key")
INNER = SecretText("inner-key")


@pytest.fixture
async def driver():
    driver = FakeDriver()
    yield driver
    await driver.close()


@pytest.fixture
async def begun(driver):
    """A started, dormant fake runtime: its handle and a client of it."""
    conversation = ConversationId(str(uuid.uuid4()))
    labels = OwnerLabels("here", TenantId("t"), conversation, RuntimeId(str(uuid.uuid4())), 3)
    await driver.ensure_volume(labels, fence=1)
    handle = await driver.create(RuntimeSpec(f"nestor-{conversation}-g3", labels), fence=1)
    endpoint = await driver.start(handle, fence=1, init_key=INIT)
    async with RuntimeClients().open(endpoint.origin, INNER) as client:
        yield handle, client


async def configure(handle: Handle, client: RuntimeClient) -> None:
    await client.init(INIT, {"session_api_keys": [INNER.open()], "generation": 3})
    await client.post_settings({"llm_model": "m"})
    await client.post_git_providers({"provider_tokens": {"github": {"token": "t"}}})
    await client.post_secrets(wire.secrets_body({"A": SecretText("b")}))
    request = StartRequest(initial_message="hello")
    await client.create_conversation(wire.conversation_body(handle.labels.conversation, request), timeout=5)


async def test_it_is_configured_and_remembers_every_post_in_order(driver, begun):
    handle, client = begun
    await configure(handle, client)
    posts = driver.script.posts(handle.name)
    calls = ["init", "settings", "add-git-providers", "secrets", "conversations"]
    assert [path for path, _ in posts] == [f"/api/{call}" for call in calls]
    assert posts[3][1] == {"secrets": {"A": "b"}}


async def test_a_message_is_answered_once_however_often_it_is_delivered(begun):
    handle, client = begun
    await configure(handle, client)
    conversation = handle.labels.conversation
    for _ in range(2):
        await client.post_message(conversation, wire.message_body("again", "11111111-1111-4111-8111-111111111111"))
    page = await client.events(conversation, page_id=None, limit=3)
    rest = await client.events(conversation, page_id=page.next_page_id)
    texts = [event["llm_message"]["content"][0]["text"] for event in [*page.items, *rest.items]]
    assert texts == ["hello", "OK.", "again", "OK."]
    assert rest.next_page_id is None


async def test_another_init_key_proves_nothing(begun):
    _, client = begun
    with pytest.raises(Impostor):
        await client.init(SecretText("another"), {"session_api_keys": ["k"]})


async def test_dormant_it_refuses_and_so_it_does_without_the_inner_key(driver, begun):
    handle, client = begun
    with pytest.raises(Refused) as dormant:
        await client.post_settings({})
    assert dormant.value.status == 503
    await configure(handle, client)
    observed = await driver.inspect(handle)
    async with httpx.AsyncClient(trust_env=False, base_url=observed.endpoint.origin) as stranger:
        assert (await stranger.get("/api/settings")).status_code == 401
        key = {"X-Session-API-Key": INNER.open(), "X-Generation": "2"}
        assert (await stranger.get("/api/settings", headers=key)).status_code == 409


async def test_a_scripted_failure_comes_as_often_as_it_was_planned(driver, begun):
    handle, client = begun
    driver.script.fail("POST", "/api/secrets", 500, times=1)
    with pytest.raises(Refused) as refused:
        await configure(handle, client)
    assert refused.value.call == "POST /api/secrets"
    await client.post_secrets(wire.secrets_body({"A": SecretText("b")}))


async def test_a_lost_reply_means_that_the_work_was_done(driver, begun):
    handle, client = begun
    driver.script.lose_reply("POST", "/api/conversations")
    with pytest.raises(RuntimeUnreachable):
        await configure(handle, client)
    assert (await client.conversation(handle.labels.conversation))["id"] == handle.labels.conversation


async def test_silence_lasts_until_the_client_gives_up(driver, begun):
    _, client = begun
    driver.script.hang("GET", "/alive")
    with anyio.move_on_after(0.2) as waited:
        await client.alive()
    assert waited.cancelled_caught
    assert await client.alive()


async def test_a_runtime_that_dies_on_a_request_is_seen_and_can_start_again_with_its_log(driver, begun):
    handle, client = begun
    await configure(handle, client)
    driver.script.die("POST", "/api/conversations/*/run")
    observed = await driver.inspect(handle)
    async with httpx.AsyncClient(trust_env=False, base_url=observed.endpoint.origin) as stranger:
        with pytest.raises(httpx.TransportError):
            await stranger.post(f"/api/conversations/{handle.labels.conversation}/run")
    seen = await driver.inspect(handle)
    assert (seen.condition, seen.cause) == (Condition.EXITED, ExitCause.CRASHED)
    again = await driver.start(handle, fence=1, init_key=INIT)
    async with RuntimeClients().open(again.origin, INNER) as client:
        await client.init(INIT, {"session_api_keys": [INNER.open()]})
        assert len((await client.events(handle.labels.conversation, page_id=None)).items) == 2


async def test_the_engine_can_fail_before_and_after_the_work(driver, begun):
    handle, _ = begun
    driver.engine.fail("destroy", DriverUnavailable("the engine is away"))
    with pytest.raises(DriverUnavailable):
        await driver.destroy(handle, fence=1)
    assert await driver.find(handle.name) == handle
    driver.engine.fail("destroy", DriverUnavailable("the reply was lost"), after=True)
    with pytest.raises(DriverUnavailable):
        await driver.destroy(handle, fence=1)
    assert await driver.find(handle.name) is None
