"""The older configuration calls: both body forms, their exact answers, and what the newer routes then show."""

from typing import Any

import httpx
import pytest

from runtime.state import RuntimeState

pytestmark = pytest.mark.anyio
PROVIDERS = "/api/add-git-providers"


def state_of(client: httpx.AsyncClient) -> RuntimeState:
    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport)
    return transport.app.state.runtime  # type: ignore[attr-defined]


async def plain(client: httpx.AsyncClient) -> dict[str, Any]:
    return (await client.get("/api/settings", headers={"X-Expose-Secrets": "plaintext"})).json()


async def test_flat_settings_become_the_newer_record(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/api/settings",
        json={
            "agent": "CodeActAgent",
            "llm_model": "openai/fake",
            "llm_api_key": "sk-old",
            "llm_base_url": "http://127.0.0.1:9000/v1",
            "max_iterations": 42,
            "confirmation_mode": True,
            "security_analyzer": "default",
            "git_user_name": "Ada",
            "git_user_email": "ada@example.org",
            "remote_runtime_resource_factor": 2,
            "search_api_key": "search-old",
            "mcp_config": {"sse_servers": [{"url": "http://x/", "api_key": "mcp-old"}]},
            "unknown": 1,
        },
    )
    assert (answer.status_code, answer.json()) == (200, {"message": "Settings stored"})
    body = await plain(client)
    assert body["agent_settings"]["llm"]["model"] == "openai/fake"
    assert body["agent_settings"]["llm"]["api_key"] == "sk-old"
    assert body["agent_settings"]["llm"]["base_url"] == "http://127.0.0.1:9000/v1"
    assert body["conversation_settings"]["max_iterations"] == 42
    assert body["conversation_settings"]["confirmation_mode"] is True
    assert body["conversation_settings"]["security_analyzer"] == "default"
    assert body["llm_api_key_is_set"] is True
    assert (body["llm_model"], body["llm_api_key"], body["llm_api_key_set"]) == ("openai/fake", None, True)
    assert (body["search_api_key"], body["search_api_key_set"], body["git_user_name"]) == (None, True, "Ada")
    assert "search-old" not in str(body)
    assert "mcp-old" not in str(body)
    older = state_of(client).settings_store.read().older
    assert older is not None
    assert (older.git_user_name, older.git_user_email) == ("Ada", "ada@example.org")


async def test_what_a_flat_record_cannot_say_comes_beside_it_in_the_same_write(client: httpx.AsyncClient) -> None:
    flat = {"llm_model": "openai/one", "llm_api_key": "sk-one"}
    diffs = {"agent_settings_diff": {"llm": {"temperature": 0.5}}, "conversation_settings_diff": {"max_iterations": 7}}
    answer = await client.post("/api/settings", json=flat | diffs)
    assert (answer.status_code, answer.json()) == (200, {"message": "Settings stored", "diffs": "merged"})
    before = await plain(client)
    assert before["agent_settings"]["llm"]["model"] == "openai/one"
    assert before["agent_settings"]["llm"]["api_key"] == "sk-one"
    assert before["agent_settings"]["llm"]["temperature"] == 0.5
    assert before["conversation_settings"]["max_iterations"] == 7
    wrong = {"llm_model": "openai/two", "agent_settings_diff": {"llm": {"temperature": "sk-hot"}}}
    answer = await client.post("/api/settings", json=wrong)
    assert answer.status_code == 422
    assert [error["loc"] for error in answer.json()["errors"]] == [["llm", "temperature"]]
    assert "sk-hot" not in answer.text
    assert await plain(client) == before


async def test_the_seed_minimum_is_enough(client: httpx.AsyncClient) -> None:
    body = {"agent": "CodeActAgent", "llm_model": "openai/fake", "security_analyzer": "default"}
    assert (await client.post("/api/settings", json=body)).status_code == 200
    assert (await client.post("/api/settings", json={**body, "llm_base_url": " "})).status_code == 200
    assert (await client.post("/api/settings", json={**body, "llm_base_url": "nonsense"})).status_code == 422


async def test_before_the_first_flat_record_no_flat_field_is_shown(client: httpx.AsyncClient) -> None:
    assert "llm_model" not in await plain(client)
    assert state_of(client).settings_store.stored is False


@pytest.mark.parametrize("absent", [{}, {"llm_api_key": None}, {"llm_api_key": "  "}, {"llm_api_key": "**********"}])
async def test_an_absent_model_key_keeps_the_stored_one(client: httpx.AsyncClient, absent: dict[str, Any]) -> None:
    first = {"llm_model": "m1", "llm_api_key": "sk-1", "llm_base_url": "http://one/", "search_api_key": "s1"}
    await client.post("/api/settings", json={**first, "user_consents_to_analytics": False, "language": "de"})
    await client.post("/api/settings", json=absent)
    body = await plain(client)
    llm = body["agent_settings"]["llm"]
    assert (llm["model"], llm["api_key"], llm["base_url"]) == ("m1", "sk-1", "http://one/")
    assert (body["search_api_key_set"], body["user_consents_to_analytics"]) == (True, False)
    assert body["language"] is None


async def test_what_an_earlier_flat_record_set_goes_back_to_its_default(client: httpx.AsyncClient) -> None:
    await client.post("/api/settings", json={"max_iterations": 9, "confirmation_mode": True, "agent": "Other"})
    await client.post("/api/settings", json={})
    body = await plain(client)
    assert body["conversation_settings"]["max_iterations"] == 500
    assert body["conversation_settings"]["confirmation_mode"] is False
    assert body["agent_settings"]["agent"] == "CodeActAgent"


async def test_what_the_newer_route_set_survives_a_flat_record(client: httpx.AsyncClient) -> None:
    diff = {
        "agent_settings_diff": {"llm": {"temperature": 0.5}},
        "conversation_settings_diff": {"max_iterations": 77},
    }
    await client.patch("/api/settings", json=diff)
    await client.post("/api/settings", json={"llm_model": "m"})
    body = await plain(client)
    assert (body["agent_settings"]["llm"]["temperature"], body["conversation_settings"]["max_iterations"]) == (0.5, 77)


@pytest.mark.parametrize("body", [{"max_iterations": "many-of-them"}, {"llm_model": 5}, {"max_iterations": 0}, [1]])
async def test_a_bad_flat_record_is_a_validation_list(client: httpx.AsyncClient, body: object) -> None:
    answer = await client.post("/api/settings", json=body)
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], list)
    assert "many-of-them" not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        {"provider_tokens": {"github": {"token": "t1", "host": None, "user_id": None}}, "mcp_config": None},
        {"providers": [{"type": "github", "token": "t1"}]},
    ],
)
async def test_both_provider_forms_store_the_same(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    answer = await client.post(PROVIDERS, json=body)
    assert (answer.status_code, answer.json()) == (200, {"message": "Git providers stored"})
    (stored,) = state_of(client).git_providers.all().values()
    assert (stored.name, stored.host, stored.user_id) == ("github", None, None)
    assert stored.token is not None
    assert stored.token.get_secret_value() == "t1"


async def test_the_list_form_keeps_host_user_and_repositories(client: httpx.AsyncClient) -> None:
    item = {"type": "gitlab", "token": "t", "host": "http://127.0.0.1:8123/", "user_id": "42", "repositories": ["a/b"]}
    await client.post(PROVIDERS, json={"providers": [item]})
    stored = state_of(client).git_providers.all()["gitlab"]
    assert (stored.host, stored.user_id, stored.repositories) == ("http://127.0.0.1:8123", "42", ("a/b",))


async def test_without_a_token_the_stored_one_stays_and_the_host_changes_and_the_unnamed_are_dropped(
    client: httpx.AsyncClient,
) -> None:
    first = {"github": {"token": "t1"}, "gitlab": {"token": "t2"}}
    await client.post(PROVIDERS, json={"provider_tokens": first})
    await client.post(PROVIDERS, json={"provider_tokens": {"github": {"token": "", "host": "git.example.org"}}})
    stored = state_of(client).git_providers.all()
    assert list(stored) == ["github"]
    assert stored["github"].host == "git.example.org"
    assert stored["github"].token is not None
    assert stored["github"].token.get_secret_value() == "t1"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"provider_tokens": {}},
        {"providers": []},
        {"provider_tokens": {"github": {"token": "t-secret"}}, "providers": [{"type": "github", "token": "t-secret"}]},
        {"providers": [{"type": "github", "token": "t-secret"}, {"type": "github", "token": "t-secret"}]},
        {"provider_tokens": {"sourceforge": {"token": "t-secret"}}},
        {"providers": [{"token": "t-secret"}]},
        {"provider_tokens": {"github": {"token": "t-secret", "host": "http://user@host/path"}}},
        {"provider_tokens": {"github": {"token": "t-secret", "host": "host/path"}}},
        {"provider_tokens": {"github": {"token": "t-secret", "host": "ftp://host"}}},
        {"provider_tokens": {"github": {"token": "t-secret", "host": "ho st"}}},
        {"provider_tokens": {"github": "t-secret"}},
    ],
)
async def test_a_bad_provider_call_is_refused_and_changes_nothing(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    await client.post(PROVIDERS, json={"provider_tokens": {"bitbucket": {"token": "t1"}}})
    answer = await client.post(PROVIDERS, json=body)
    assert answer.status_code == 422
    assert "t-secret" not in answer.text
    assert list(state_of(client).git_providers.all()) == ["bitbucket"]


async def test_unset_forgets_every_provider(client: httpx.AsyncClient) -> None:
    await client.post(PROVIDERS, json={"provider_tokens": {"github": {"token": "t1"}}})
    answer = await client.post("/api/unset-provider-tokens")
    assert (answer.status_code, answer.json()) == (200, {"message": "Unset Git provider tokens"})
    assert not state_of(client).git_providers.all()


async def test_provider_tokens_are_told_as_hosts_only(client: httpx.AsyncClient) -> None:
    await client.post("/api/settings", json={"llm_model": "m"})
    await client.post(
        PROVIDERS, json={"provider_tokens": {"github": {"token": "t1", "host": "git.example.org"}, "gitlab": {}}}
    )
    assert (await plain(client))["provider_tokens_set"] == {"github": "git.example.org"}


async def test_a_single_secret_is_created_once(client: httpx.AsyncClient) -> None:
    body = {"name": "K", "value": "v", "description": "d"}
    answer = await client.post("/api/secrets", json=body)
    assert (answer.status_code, answer.json()) == (201, {"message": "Secret created successfully"})
    again = await client.post("/api/secrets", json=body)
    assert (again.status_code, again.json()) == (400, {"message": "Secret K already exists"})
    assert (await client.get("/api/secrets")).json() == {"custom_secrets": [{"name": "K", "description": "d"}]}
    assert (await client.get("/api/settings/secrets/K")).text == "v"


async def test_bulk_secrets_may_be_sent_again(client: httpx.AsyncClient) -> None:
    await client.post("/api/secrets", json={"secrets": {"A": "1"}})
    answer = await client.post("/api/secrets", json={"secrets": {"A": "1", "B": "2"}})
    expected = {"message": "Secrets stored", "created": ["B"], "existing": ["A"]}
    assert (answer.status_code, answer.json()) == (200, expected)


async def test_bulk_secrets_with_another_value_store_nothing(client: httpx.AsyncClient) -> None:
    await client.post("/api/secrets", json={"secrets": {"A": "1"}})
    answer = await client.post("/api/secrets", json={"secrets": {"B": "2", "A": "other"}})
    assert (answer.status_code, answer.json()) == (400, {"message": "Secret A already exists"})
    assert [item["name"] for item in (await client.get("/api/secrets")).json()["custom_secrets"]] == ["A"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "K"},
        {"value": "v-secret"},
        {"name": "bad-name", "value": "v-secret"},
        {"name": "K", "value": ""},
        {"name": "K", "value": 5},
        {"secrets": {"A": 5}},
        {"secrets": {"A": "ok", "bad-name": "v-secret"}},
        {"secrets": {"A": "ok"}, "name": "K", "value": "v-secret"},
        {"secrets": ["A"]},
    ],
)
async def test_a_bad_secret_call_is_refused_and_stores_nothing(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    answer = await client.post("/api/secrets", json=body)
    assert answer.status_code == 422
    assert "v-secret" not in answer.text
    assert (await client.get("/api/secrets")).json() == {"custom_secrets": []}


async def test_a_secret_is_renamed_and_described_without_its_value(client: httpx.AsyncClient) -> None:
    await client.post("/api/secrets", json={"secrets": {"A": "1", "B": "2"}})
    answer = await client.put("/api/secrets/A", json={"name": "C", "description": "third"})
    assert (answer.status_code, answer.json()) == (200, {"message": "Secret updated successfully"})
    assert (await client.get("/api/settings/secrets/C")).text == "1"
    taken = await client.put("/api/secrets/C", json={"name": "B"})
    assert (taken.status_code, taken.json()) == (400, {"message": "Secret B already exists"})
    missing = await client.put("/api/secrets/A", json={"name": "D"})
    assert (missing.status_code, missing.json()) == (404, {"error": "Secret with ID A not found"})
    assert (await client.put("/api/secrets/C", json={"name": "bad-name"})).status_code == 422


async def test_a_secret_is_deleted_once(client: httpx.AsyncClient) -> None:
    await client.post("/api/secrets", json={"name": "A", "value": "1"})
    answer = await client.delete("/api/secrets/A")
    assert (answer.status_code, answer.json()) == (200, {"message": "Secret deleted successfully"})
    missing = await client.delete("/api/secrets/A")
    assert (missing.status_code, missing.json()) == (404, {"error": "Secret with ID A not found"})
