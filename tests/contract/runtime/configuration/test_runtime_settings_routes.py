"""GET and PATCH /api/settings against the contract's captured answers and its rules."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from runtime.configuration.record import AgentSettings
from runtime.store.cipher import Cipher
from runtime.store.exposure import Opening

pytestmark = pytest.mark.anyio
Sample = Callable[[str], dict[str, Any]]
MASK = "**********"


def without_clock(body: dict[str, Any]) -> dict[str, Any]:
    """The record without the one field that is the time of asking."""
    body["agent_settings"]["agent_context"].pop("current_datetime")
    return body


async def patch_agent(client: httpx.AsyncClient, diff: dict[str, Any]) -> httpx.Response:
    return await client.patch("/api/settings", json={"agent_settings_diff": diff})


async def read(client: httpx.AsyncClient, exposure: str | None = None) -> dict[str, Any]:
    answer = await client.get("/api/settings", headers={"X-Expose-Secrets": exposure} if exposure else {})
    assert answer.status_code == 200
    return answer.json()


@pytest.mark.parametrize("name", ["02-settings-patch-llm", "02-settings-patch-mcp", "02-settings-patch-mcp-unset"])
async def test_a_change_answers_the_captured_record(client: httpx.AsyncClient, sample: Sample, name: str) -> None:
    for step in ("02-settings-patch-llm", "02-settings-patch-mcp", name):
        answer = await client.patch("/api/settings", json=sample(step)["request"]["body"])
        assert answer.status_code == 200
        if step == name:
            break
    assert without_clock(answer.json()) == without_clock(sample(name)["response"]["body"])


async def test_misc_and_conversation_settings_answer_the_captured_record(
    client: httpx.AsyncClient, sample: Sample
) -> None:
    await client.patch("/api/settings", json=sample("02-settings-patch-llm")["request"]["body"])
    answer = await client.patch("/api/settings", json=sample("02-settings-patch-misc")["request"]["body"])
    assert without_clock(answer.json()) == without_clock(sample("02-settings-patch-misc")["response"]["body"])


@pytest.mark.parametrize(("name", "header"), [("default", None), ("redacted", None), ("plaintext", "PlainText ")])
async def test_reading_answers_the_captured_record(
    client: httpx.AsyncClient, sample: Sample, name: str, header: str | None
) -> None:
    await client.patch("/api/settings", json=sample("02-settings-patch-llm")["request"]["body"])
    expected = sample(f"02-settings-get-{name}")["response"]["body"]
    assert without_clock(await read(client, header)) == without_clock(expected)


async def test_nothing_stored_reads_as_defaults_without_a_key(client: httpx.AsyncClient) -> None:
    body = await read(client)
    assert body["llm_api_key_is_set"] is False
    assert body["agent_settings"]["llm"]["api_key"] is None


@pytest.mark.parametrize("header", ["encrypted", "true"])
async def test_encrypted_exposure_is_a_new_token_each_time(client: httpx.AsyncClient, header: str) -> None:
    await patch_agent(client, {"llm": {"api_key": "sk-1"}})
    tokens = {(await read(client, header))["agent_settings"]["llm"]["api_key"] for _ in range(2)}
    assert len(tokens) == 2
    assert all(token.startswith("gAAAAA") for token in tokens)


async def test_an_encrypted_token_sent_back_is_decrypted_and_stored(client: httpx.AsyncClient) -> None:
    await patch_agent(client, {"llm": {"api_key": "sk-1"}})
    token = (await read(client, "encrypted"))["agent_settings"]["llm"]["api_key"]
    await patch_agent(client, {"llm": {"api_key": "sk-2"}})
    assert (await patch_agent(client, {"llm": {"api_key": token}})).status_code == 200
    assert (await read(client, "plaintext"))["agent_settings"]["llm"]["api_key"] == "sk-1"


async def test_a_token_of_another_key_is_refused_and_nothing_changes(client: httpx.AsyncClient, sample: Sample) -> None:
    await patch_agent(client, {"llm": {"api_key": "sk-1"}})
    foreign = sample("02-settings-get-encrypted")["response"]["body"]["agent_settings"]["llm"]["api_key"]
    answer = await patch_agent(client, {"llm": {"api_key": foreign}})
    assert answer.status_code == 422
    assert foreign not in answer.text
    assert (await read(client, "plaintext"))["agent_settings"]["llm"]["api_key"] == "sk-1"


async def test_an_unknown_exposure_is_refused_as_captured(client: httpx.AsyncClient, sample: Sample) -> None:
    answer = await client.get("/api/settings", headers={"X-Expose-Secrets": "yes"})
    captured = sample("02-settings-get-badheader")["response"]
    assert (answer.status_code, answer.json()) == (captured["status"], captured["body"])


@pytest.mark.parametrize("echo", [MASK, "", "   "])
async def test_a_redacted_or_blank_secret_sent_back_keeps_the_stored_one(client: httpx.AsyncClient, echo: str) -> None:
    await patch_agent(
        client,
        {
            "llm": {"api_key": "sk-1", "aws_session_token": "aws"},
            "mcp_config": {"svc": {"url": "http://127.0.0.1:9/", "headers": {"X-A": "a"}}},
        },
    )
    echoed = {"llm": {"api_key": echo, "aws_session_token": echo}, "mcp_config": {"svc": {"headers": {"X-A": echo}}}}
    assert (await patch_agent(client, echoed)).status_code == 200
    shown = (await read(client, "plaintext"))["agent_settings"]
    assert (shown["llm"]["api_key"], shown["llm"]["aws_session_token"]) == ("sk-1", "aws")
    assert shown["mcp_config"]["svc"]["headers"] == {"X-A": "a"}


async def test_a_whole_redacted_record_sent_back_changes_nothing(client: httpx.AsyncClient) -> None:
    await patch_agent(client, {"llm": {"api_key": "sk-1"}, "agent_context": {"secrets": {"A": "value-a"}}})
    before = await read(client, "plaintext")
    shown = await read(client)
    answer = await client.patch(
        "/api/settings",
        json={
            "agent_settings_diff": shown["agent_settings"],
            "conversation_settings_diff": shown["conversation_settings"],
        },
    )
    assert answer.status_code == 200
    assert await read(client, "plaintext") == before


async def test_a_mask_for_a_secret_that_was_never_set_stores_nothing(client: httpx.AsyncClient) -> None:
    answer = await patch_agent(client, {"llm": {"api_key": MASK}})
    assert answer.json()["llm_api_key_is_set"] is False


async def test_null_clears_a_key_but_is_no_value_for_a_number(client: httpx.AsyncClient) -> None:
    await patch_agent(client, {"llm": {"api_key": "sk-1"}})
    assert (await patch_agent(client, {"llm": {"api_key": None}})).json()["llm_api_key_is_set"] is False
    refused = await client.patch("/api/settings", json={"conversation_settings_diff": {"max_iterations": None}})
    assert refused.status_code == 422


async def test_null_deletes_entries_of_free_maps(client: httpx.AsyncClient) -> None:
    await client.patch("/api/settings", json={"misc_settings_diff": {"a": {"b": 1, "c": 2}, "d": 3}})
    await patch_agent(client, {"mcp_config": {"one": {"command": "x", "env": {"K": "v"}}, "two": {"command": "y"}}})
    answer = await client.patch("/api/settings", json={"misc_settings_diff": {"a": {"b": None}, "d": None}})
    assert answer.json()["misc_settings"] == {"a": {"c": 2}}
    changed = await patch_agent(client, {"mcp_config": {"one": {"env": {"K": None}}, "two": None}})
    assert changed.json()["agent_settings"]["mcp_config"] == {"one": {"command": "x", "env": {}, "enabled": True}}


async def test_lists_and_scalars_replace(client: httpx.AsyncClient) -> None:
    await patch_agent(
        client, {"tools": [{"name": "a"}, {"name": "b"}], "mcp_config": {"s": {"command": "x", "args": ["1", "2"]}}}
    )
    answer = await patch_agent(client, {"tools": [{"name": "c"}], "mcp_config": {"s": {"args": ["3"]}}})
    assert answer.json()["agent_settings"]["tools"] == [{"name": "c", "params": {}}]
    assert answer.json()["agent_settings"]["mcp_config"]["s"]["args"] == ["3"]


async def test_unknown_fields_are_dropped(client: httpx.AsyncClient) -> None:
    answer = await client.patch(
        "/api/settings", json={"agent_settings_diff": {"llm": {"nonsense": 1}, "other": 2}, "third": 3}
    )
    assert answer.status_code == 200
    assert "nonsense" not in answer.text


@pytest.mark.parametrize("body", [{}, {"unknown": 1}, {"agent_settings_diff": None}])
async def test_an_empty_change_is_refused_as_captured(
    client: httpx.AsyncClient, sample: Sample, body: dict[str, Any]
) -> None:
    answer = await client.patch("/api/settings", json=body)
    captured = sample("02-settings-patch-empty")["response"]
    assert (answer.status_code, answer.json()) == (captured["status"], captured["body"])


async def test_a_bad_value_is_refused_naming_the_field_and_never_the_value(
    client: httpx.AsyncClient, sample: Sample
) -> None:
    answer = await patch_agent(client, {"llm": {"temperature": "hot-secret"}})
    captured = sample("02-settings-patch-invalid")["response"]
    assert (answer.status_code, answer.json()["detail"]) == (captured["status"], captured["body"]["detail"])
    assert answer.json()["errors"][0]["loc"] == ["llm", "temperature"]
    assert "hot-secret" not in answer.text


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"llm": {"base_url": "nonsense-secret"}}, ["llm", "base_url"]),
        ({"llm": {"ollama_base_url": "http://"}}, ["llm", "ollama_base_url"]),
        ({"mcp_config": {"s": {}}}, ["mcp_config", "s"]),
    ],
)
async def test_what_could_never_work_is_refused_when_it_is_given_and_read_when_it_is_stored(
    client: httpx.AsyncClient, change: dict[str, Any], place: list[str]
) -> None:
    answer = await patch_agent(client, change)
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, place)
    assert "nonsense-secret" not in answer.text
    assert (await patch_agent(client, {"mcp_config": {"s": {"enabled": False}}})).status_code == 200
    stored = AgentSettings.model_validate(change, context=Opening(Cipher(None), stored=True))
    assert stored.model_dump(exclude_unset=True)[place[0]][place[1]] == change[place[0]][place[1]]


async def test_a_change_that_is_no_object_is_a_validation_list(client: httpx.AsyncClient) -> None:
    answer = await client.patch("/api/settings", json={"agent_settings_diff": "text-of-the-caller"})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "agent_settings_diff"]
    assert "text-of-the-caller" not in answer.text


async def test_half_a_bad_change_stores_nothing(client: httpx.AsyncClient) -> None:
    answer = await client.patch(
        "/api/settings",
        json={
            "agent_settings_diff": {"llm": {"model": "new"}},
            "conversation_settings_diff": {"max_iterations": 0},
        },
    )
    assert answer.status_code == 422
    assert (await read(client))["agent_settings"]["llm"]["model"] != "new"


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("active_profile", "mine"),
        ("active_meta_profile", "mine"),
        ("active_agent_profile_id", "01234567-89ab-cdef-0123-456789abcdef"),
    ],
)
async def test_profiles_can_be_cleared_and_an_unknown_one_is_404(
    client: httpx.AsyncClient, field: str, name: str
) -> None:
    assert (await client.patch("/api/settings", json={field: None})).status_code == 200
    missing = await client.patch("/api/settings", json={field: name})
    assert missing.status_code == 404
    assert missing.json()["detail"].lower().endswith(f"profile '{name}' not found")


async def test_an_answer_to_a_change_is_redacted_whatever_the_header_asks(client: httpx.AsyncClient) -> None:
    answer = await client.patch(
        "/api/settings",
        json={"agent_settings_diff": {"llm": {"api_key": "sk-1"}}},
        headers={"X-Expose-Secrets": "plaintext"},
    )
    assert "sk-1" not in answer.text


async def test_every_secret_field_is_hidden_unless_asked_for(client: httpx.AsyncClient) -> None:
    await patch_agent(
        client,
        {
            "llm": {
                "api_key": "hidden-1",
                "aws_access_key_id": "hidden-2",
                "aws_secret_access_key": "hidden-3",
                "aws_session_token": "hidden-4",
                "extra_headers": {"Authorization": "hidden-5"},
            },
            "verification": {"critic_api_key": "hidden-6"},
            "mcp_config": {
                "a": {"command": "x", "env": {"K": "hidden-7"}},
                "b": {"url": "http://x/", "auth": {"strategy": "bearer", "value": "hidden-8"}},
                "c": {"url": "http://x/", "auth": {"strategy": "basic", "username": "u", "password": "hidden-9"}},
            },
            "agent_context": {
                "secrets": {
                    "P": "hidden-10",
                    "S": {"kind": "StaticSecret", "value": "hidden-11"},
                    "L": {"kind": "LookupSecret", "url": "http://x/", "headers": {"X-Session-API-Key": "hidden-12"}},
                }
            },
            "meta_profile_llms": {"cheap": {"model": "m", "api_key": "hidden-13"}},
        },
    )
    hidden = await client.get("/api/settings")
    sealed = await client.get("/api/settings", headers={"X-Expose-Secrets": "encrypted"})
    shown = await client.get("/api/settings", headers={"X-Expose-Secrets": "plaintext"})
    assert "hidden-" not in hidden.text
    assert "hidden-" not in sealed.text
    assert {f"hidden-{number}" for number in range(1, 14) if f'"hidden-{number}"' in shown.text} == {
        f"hidden-{number}" for number in range(1, 14)
    }


async def test_concurrent_changes_are_all_kept(client: httpx.AsyncClient) -> None:
    changes = [client.patch("/api/settings", json={"misc_settings_diff": {f"k{n}": n}}) for n in range(12)]
    assert {answer.status_code for answer in await asyncio.gather(*changes)} == {200}
    assert (await read(client))["misc_settings"] == {f"k{n}": n for n in range(12)}


@pytest.mark.parametrize(
    "content",
    [
        b'{"misc_settings_diff":{"a":NaN}}',
        b'{"misc_settings_diff":{"a":"\\ud800"}}',
        b'{"misc_settings_diff":{"a":"\\u0000"}}',
        b'{"misc_settings_diff":{"\\ud800":1}}',
        b'{"misc_settings_diff":' + b'{"a":' * 60 + b"1" + b"}" * 60 + b"}",
        b'{"misc_settings_diff":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b"\xff\xfe{",
        b"not json",
    ],
)
async def test_json_that_cannot_be_kept_is_a_client_error(client: httpx.AsyncClient, content: bytes) -> None:
    answer = await client.patch("/api/settings", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 422}
    assert (await read(client))["misc_settings"] == {}
