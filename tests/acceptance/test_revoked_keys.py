"""A key that is revoked while it is told something: a download that would last for hours ends within moments."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx
import pytest
from support.processes import OrchestratorProcess, orchestrator_at

MODEL = {"agent_settings": {"llm": {"model": "openai/none", "api_key": "sk-none"}}}
_WITHIN_SECONDS = 10.0  #: a second is promised; this machine may be at work on something else


@pytest.fixture(scope="module")
def nestor(tmp_path_factory: pytest.TempPathFactory):
    settings = {"NESTOR_EPHEMERAL": "1"}
    with orchestrator_at(tmp_path_factory.mktemp("n") / "data", driver="process", **settings) as running:
        yield running


async def read_for(pieces: AsyncIterator[bytes], seconds: float) -> None:
    """As a slow client does."""
    until = time.monotonic() + seconds
    async for _ in pieces:
        assert time.monotonic() < until
        await anyio.sleep(0.005)


@pytest.mark.parametrize(
    ("path", "header"),
    [
        ("/api/v2/conversations/{id}/files/big", "Authorization"),
        ("/api/conversations/{id}/files/big", "X-Session-API-Key"),
    ],
    ids=["native API", "agent server"],
)
async def test_a_download_ends_with_its_key(nestor: OrchestratorProcess, path: str, header: str) -> None:
    tenant = nestor.call("POST", "/api/v2/tenants", json={"name": "acme"}, status=201)["id"]
    keys = f"/api/v2/tenants/{tenant}/api-keys"
    own, lent = (nestor.call("POST", keys, json={"name": name}, status=201) for name in ("own", "lent"))
    nestor.call("PATCH", "/api/v2/settings", own["key"], json=MODEL, status=200)
    made = nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=120", own["key"], json={}, status=200)
    async with httpx.AsyncClient(base_url=nestor.url, timeout=60, trust_env=False) as http:
        inside = {"X-Session-API-Key": made["runtime"]["session_key"]}
        place = f"{made['runtime']['url']}/api"
        about = (await http.get(f"{place}/conversations/{made['id']}", headers=inside)).json()
        command = {"command": f"truncate -s 1T {Path(about['workspace']['working_dir'], 'big')}"}
        await http.post(f"{place}/bash/execute_bash_command", headers=inside, json=command)

        value = lent["key"] if header != "Authorization" else f"Bearer {lent['key']}"
        with anyio.fail_after(120):
            async with http.stream("GET", path.format(id=made["id"]), headers={header: value}) as answer:
                assert answer.status_code == 200
                pieces = answer.aiter_raw(65536)
                await anext(pieces)
                await anyio.to_thread.run_sync(lambda: nestor.call("DELETE", f"{keys}/{lent['id']}", status=204))
                with pytest.raises(httpx.RemoteProtocolError):
                    await read_for(pieces, _WITHIN_SECONDS)
