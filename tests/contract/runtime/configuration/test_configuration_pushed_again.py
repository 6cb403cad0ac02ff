"""What the orchestrator pushes to a live runtime of ours, into the real one: replaced, taken out, repeatable."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain.git import GitProvider
from orchestrator.domain.secrets import SecretText
from orchestrator.nested.client import RuntimeClients
from orchestrator.nested.wire import Bundle
from orchestrator.services.held import held_by
from orchestrator.services.upkeep import push_own
from tests.support.runtimes import KEY, runtime_at

pytestmark = pytest.mark.anyio


def bundle(model: str, *, base_url: str | None, providers: bool, **secrets: str) -> Bundle:
    llm: dict[str, Any] = {"model": model, "api_key": SecretText("sk-1"), "temperature": 0.5}
    return Bundle(
        settings={"agent_settings": {"llm": llm | ({"base_url": base_url} if base_url else {})}},
        providers=[GitProvider("github", SecretText("ghp_x"), None, None)] if providers else [],
        secrets={name: SecretText(value) for name, value in secrets.items()},
    )


async def test_a_runtime_holds_what_was_pushed_last(tmp_path: Path) -> None:
    first = bundle("a/one", base_url="http://127.0.0.1:9/v1", providers=True, KEPT="old", GONE="value")
    second = bundle("a/two", base_url=None, providers=False, KEPT="new", ADDED="value")
    key = SecretText(KEY)
    async with runtime_at(tmp_path) as runtime:
        async with RuntimeClients().open(runtime.url, key) as client:
            await push_own(client, first, None)
            await runtime.http.put("/api/settings/secrets", json={"name": "CLIENTS", "value": "its own"})
            held = held_by(first, key, "1.0", at=datetime.now(UTC))
            for _ in range(2):  # a push whose reply was lost is pushed again
                await push_own(client, second, held)
        settings = (await runtime.http.get("/api/settings")).json()
        assert settings["agent_settings"]["llm"]["model"] == "a/two"
        assert settings["agent_settings"]["llm"]["base_url"] is None
        assert settings["agent_settings"]["llm"]["temperature"] == 0.5
        assert settings["llm_api_key_is_set"] is True
        assert settings["provider_tokens_set"] == {}
        listed = (await runtime.http.get("/api/settings/secrets")).json()["secrets"]
        assert sorted(item["name"] for item in listed) == ["ADDED", "CLIENTS", "KEPT"]
        assert (await runtime.http.get("/api/settings/secrets/KEPT")).text == "new"


def test_the_digest_follows_every_value_and_the_key() -> None:
    at, key = datetime.now(UTC), SecretText("inner")
    one = held_by(bundle("a/one", base_url=None, providers=True, A="1"), key, "1.0", at=at)
    assert one.secrets == ("A",)
    assert one.providers == ("github",)
    again = held_by(bundle("a/one", base_url=None, providers=True, A="1"), key, "2.0", at=at)
    assert again.digest == one.digest
    others = [
        held_by(bundle("a/two", base_url=None, providers=True, A="1"), key, "1.0", at=at),
        held_by(bundle("a/one", base_url=None, providers=False, A="1"), key, "1.0", at=at),
        held_by(bundle("a/one", base_url=None, providers=True, A="2"), key, "1.0", at=at),
        held_by(bundle("a/one", base_url=None, providers=True, A="1"), SecretText("other"), "1.0", at=at),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 5
