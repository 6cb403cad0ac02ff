"""What lies on disk: nothing in clear, nothing lost by a wrong key, everything sealed anew after a rotation."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from runtime.settings import RuntimeSettings
from runtime.store.cipher import Cipher

pytestmark = pytest.mark.anyio
Configure = Callable[..., RuntimeSettings]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

VALUES = [f"hidden-{number}" for number in range(1, 8)]


async def store_everything(client: httpx.AsyncClient) -> None:
    diff = {
        "llm": {"api_key": VALUES[0]},
        "mcp_config": {"s": {"url": "http://x/", "headers": {"H": VALUES[1]}}},
    }
    calls = [
        ("PATCH", "/api/settings", {"agent_settings_diff": diff}),
        ("POST", "/api/settings", {"search_api_key": VALUES[2], "mcp_config": {"k": VALUES[3]}}),
        ("PUT", "/api/settings/secrets", {"name": "A", "value": VALUES[4]}),
        ("POST", "/api/secrets", {"secrets": {"B": VALUES[5]}}),
        ("POST", "/api/add-git-providers", {"providers": [{"type": "github", "token": VALUES[6]}]}),
    ]
    for method, path, body in calls:
        answer = await client.request(method, path, json=body)
        assert answer.is_success, answer.text


async def all_values(client: httpx.AsyncClient) -> dict[str, Any]:
    shown = (await client.get("/api/settings", headers={"X-Expose-Secrets": "plaintext"})).json()
    secrets = [(await client.get(f"/api/settings/secrets/{name}")).text for name in ("A", "B")]
    return {
        "key": shown["agent_settings"]["llm"]["api_key"],
        "headers": shown["agent_settings"]["mcp_config"]["s"]["headers"],
        "secrets": secrets,
        "providers": list(shown["provider_tokens_set"]),
        "set": shown["llm_api_key_is_set"],
    }


def on_disk(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


async def test_nothing_is_in_clear_and_only_the_owner_may_read(
    configure: Configure, serve: Serve, tmp_path: Path
) -> None:
    async with serve(configure()) as client:
        await store_everything(client)
    files = on_disk(tmp_path)
    assert {"settings.json", "secrets.json", "git_providers.json"} <= files.keys()
    assert b"gAAAAA" in files["secrets.json"]
    assert not [name for name, content in files.items() for value in VALUES if value.encode() in content]
    directory = tmp_path / "persistence"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


async def test_a_restart_keeps_everything(configure: Configure, serve: Serve) -> None:
    async with serve(configure()) as client:
        await store_everything(client)
        before = await all_values(client)
    async with serve(configure()) as client:
        assert await all_values(client) == before
    assert before["key"] == VALUES[0]


@pytest.mark.parametrize("key", ["another key", None])
async def test_a_wrong_or_missing_key_reads_as_unset_and_overwrites_nothing(
    configure: Configure, serve: Serve, tmp_path: Path, capfd: pytest.CaptureFixture[str], key: str | None
) -> None:
    async with serve(configure()) as client:
        await store_everything(client)
    before = on_disk(tmp_path / "persistence")
    async with serve(configure(secret_key=key)) as client:
        shown = await client.get("/api/settings", headers={"X-Expose-Secrets": "plaintext"})
        assert shown.status_code == 200
        assert shown.json()["llm_api_key_is_set"] is False
        assert "gAAAAA" not in shown.text
        assert (await client.get("/api/settings/secrets/A")).status_code == 404
        assert [item["name"] for item in (await client.get("/api/settings/secrets")).json()["secrets"]] == ["A", "B"]
        for method, path, body in (
            ("PATCH", "/api/settings", {"misc_settings_diff": {"a": 1}}),
            ("POST", "/api/settings", {"llm_model": "m"}),
            ("PUT", "/api/settings/secrets", {"name": "C", "value": "v"}),
            ("DELETE", "/api/settings/secrets/A", None),
            ("POST", "/api/secrets", {"name": "C", "value": "v"}),
            ("POST", "/api/add-git-providers", {"providers": [{"type": "gitlab", "token": "t"}]}),
            ("POST", "/api/unset-provider-tokens", None),
        ):
            answer = await client.request(method, path, json=body)
            assert answer.status_code == 409, (path, answer.text)
    assert {name: content for name, content in on_disk(tmp_path / "persistence").items() if name in before} == before
    assert "store.unreadable" in capfd.readouterr().out
    async with serve(configure()) as client:
        assert (await all_values(client))["key"] == VALUES[0]


async def test_after_a_rotation_everything_is_sealed_with_the_new_key(configure: Configure, serve: Serve) -> None:
    async with serve(configure()) as client:
        await store_everything(client)
        before = await all_values(client)
    async with serve(configure(secret_key="new key", previous_secret_keys=["older key", "a secret key"])) as client:
        assert await all_values(client) == before
    async with serve(configure(secret_key="new key")) as client:
        assert await all_values(client) == before


async def start_conversation(client: httpx.AsyncClient, tmp_path: Path) -> str:
    llm = {"model": "openai/none", "api_key": VALUES[0]}
    body = {"agent": {"llm": llm}, "secrets": {"A": VALUES[1]}, "workspace": {"working_dir": str(tmp_path / "w")}}
    made = await client.post("/api/conversations", json=body)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def conversation_value(app: httpx.AsyncClient, id: str) -> str | None:
    """The model's key as the conversation has it in memory."""
    state = app._transport.app.state.runtime  # type: ignore[attr-defined]
    key = (await state.conversations.get(UUID(id))).record.agent.llm.api_key
    return key.get_secret_value() if key is not None else None


async def test_a_conversation_is_sealed_with_the_new_key_too(
    configure: Configure, serve: Serve, tmp_path: Path
) -> None:
    async with serve(configure()) as client:
        id = await start_conversation(client, tmp_path)
    async with serve(configure(secret_key="new key", previous_secret_keys=["a secret key"])) as client:
        assert await conversation_value(client, id) == VALUES[0]
    async with serve(configure(secret_key="new key")) as client:
        assert await conversation_value(client, id) == VALUES[0]


async def test_what_a_wrong_key_cannot_open_of_a_conversation_is_kept_when_it_is_written(
    configure: Configure, serve: Serve, tmp_path: Path
) -> None:
    async with serve(configure()) as client:
        id = await start_conversation(client, tmp_path)
    folder = tmp_path / "conversations" / id.replace("-", "")
    sealed = (folder / "conversation.json").read_bytes()
    for wrong in ("another key", None):
        async with serve(configure(secret_key=wrong)) as client:
            assert await conversation_value(client, id) is None
            assert (await client.get(f"/api/conversations/{id}")).status_code == 200
            assert "conversations (1): values that another" in str((await client.get("/ready")).json()["warnings"])
            for title in ("changed", "twice"):
                assert (await client.patch(f"/api/conversations/{id}", json={"title": title})).status_code == 200
    assert (folder / "conversation.sealed-with-another-key").read_bytes() == sealed
    async with serve(configure()) as client:
        assert "conversations (1)" in str((await client.get("/ready")).json()["warnings"]), "it still reads as unset"
    (folder / "conversation.sealed-with-another-key").rename(folder / "conversation.json")
    async with serve(configure()) as client:
        assert await conversation_value(client, id) == VALUES[0]
        assert "warnings" not in (await client.get("/ready")).json()


async def test_without_a_key_secrets_live_in_memory_only(configure: Configure, serve: Serve, tmp_path: Path) -> None:
    async with serve(configure(secret_key=None)) as client:
        await store_everything(client)
        assert (await all_values(client))["secrets"] == [VALUES[4], VALUES[5]]
    assert not [name for name, content in on_disk(tmp_path).items() for value in VALUES if value.encode() in content]
    async with serve(configure(secret_key=None)) as client:
        body = (await client.get("/api/settings", headers={"X-Expose-Secrets": "plaintext"})).json()
        assert body["llm_api_key_is_set"] is False
        assert body["agent_settings"]["mcp_config"]["s"] == {"url": "http://x/", "headers": {}, "enabled": True}
        assert (await client.get("/api/settings/secrets/A")).status_code == 404
        again = await client.put("/api/settings/secrets", json={"name": "A", "value": "supplied anew"})
        assert again.status_code == 200


@pytest.mark.parametrize("damage", [b"{", b"[]", b"\xff", b'{"agent_settings": 5}'])
async def test_a_damaged_file_is_left_alone(configure: Configure, serve: Serve, tmp_path: Path, damage: bytes) -> None:
    directory = tmp_path / "persistence"
    directory.mkdir()
    (directory / "settings.json").write_bytes(damage)
    (directory / "agent_profiles.json").write_bytes(b"{")
    async with serve(configure()) as client:
        (said,) = (warning for warning in (await client.get("/ready")).json()["warnings"] if "stored" in warning)
        assert said.startswith("settings, agent profiles: ")
        assert (await client.get("/api/settings")).status_code == 200
        assert (await client.patch("/api/settings", json={"misc_settings_diff": {"a": 1}})).status_code == 409
    assert (directory / "settings.json").read_bytes() == damage


async def test_two_servers_on_one_directory_lose_no_change(configure: Configure, serve: Serve) -> None:
    async with serve(configure()) as one, serve(configure()) as two:
        await one.put("/api/settings/secrets", json={"name": "A", "value": "1"})
        await two.put("/api/settings/secrets", json={"name": "B", "value": "2"})
        await one.put("/api/settings/secrets", json={"name": "C", "value": "3"})
        names = [item["name"] for item in (await one.get("/api/settings/secrets")).json()["secrets"]]
    assert names == ["A", "B", "C"]


async def test_files_of_another_agent_server_with_the_same_key_are_read(
    configure: Configure, serve: Serve, tmp_path: Path
) -> None:
    directory = tmp_path / "persistence"
    directory.mkdir()
    settings = configure()
    token = Cipher(settings.secret_key).encrypt("from elsewhere")
    content = f'{{"custom_secrets":{{"N":{{"name":"N","secret":"{token}","description":"d"}}}}}}'
    (directory / "secrets.json").write_text(content)
    async with serve(settings) as client:
        assert (await client.get("/api/settings/secrets/N")).text == "from elsewhere"
