"""A conversation whose model is on the public net, with egress for named hosts only: from the API to the shell."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import containers
from support.docker_nestor import nestor_in
from support.outside import Outside, outside, run

pytestmark = [pytest.mark.docker, pytest.mark.anyio, pytest.mark.slow]

PORT = 8099
LOOK = "import urllib.request as u; print(u.urlopen('http://{host}:{port}{path}', timeout=9).status)"


@contextmanager
def model_at(ground: Outside) -> Iterator[str]:
    """The scripted model, outside; its base address."""
    words = ["ip", "netns", "exec", ground.space, sys.executable, "-m", "orchestrator.demo.model_server"]
    command = [*words, "--host", ground.public, "--port", str(PORT)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=containers.REPOSITORY)
    try:
        assert server.stdout is not None
        assert str(PORT) in server.stdout.readline()
        yield f"http://{ground.public}:{PORT}/v1"
    finally:
        server.terminate()
        server.communicate(timeout=20)


async def test_the_model_is_reached_the_rest_is_not_and_events_come_by_the_listener(folder: Path):
    told = {
        "NESTOR_EGRESS": "allow-list",
        "NESTOR_EGRESS_IMAGE": containers.egress_image(),
        "NESTOR_RUNTIME_REACHES": "",
    }
    with outside() as ground, model_at(ground) as base_url:
        told["NESTOR_EGRESS_HOSTS"] = f"{ground.public}:80"
        async with nestor_in(folder, **told) as nestor:
            key = await nestor.tenant()
            llm = {"model": "openai/scripted", "api_key": "sk-any", "base_url": base_url}
            await nestor.call("PATCH", "/api/v2/settings", key, json={"agent_settings": {"llm": llm}}, status=200)
            conversation = await nestor.conversation(key)
            listed = LOOK.format(host=ground.public, port=PORT, path="/v1/models")
            other = LOOK.format(host=ground.public, port=81, path="/")
            await give_lookups(conversation, VAULT=f"http://{ground.public}/", OTHER=f"http://{ground.public}:{PORT}/")
            looks = f'python3 -c "{listed}"; python3 -c "{other}" 2>&1 | tail -1'
            command = f'{looks}; test "$VAULT" = outside && echo looked-up; test -z "$OTHER" && echo not-named'
            step = {"tool": "terminal", "args": {"command": command, "summary": "Look around"}}
            events = await nestor.run(key, conversation["id"], step)
            seen = " ".join(str(event.get("observation")) for event in events)
            assert "HTTP Error 403" in seen
            assert re.search(r"\b(200|HTTP Error 401)", seen), seen  # the model answered, whatever it answers
            assert "looked-up" in seen  # by the proxy: there is no other way out
            assert "not-named" in seen  # hosts of models and git providers are reached, and are no vaults
            assert counted_at_listener() > 0


async def give_lookups(conversation: dict[str, Any], **urls: str) -> None:
    """Secrets that the runtime itself fetches, as a client gives them: to the runtime, by its own address."""
    runtime = conversation["runtime"]
    secrets = {name: {"kind": "LookupSecret", "url": url} for name, url in urls.items()}
    async with httpx.AsyncClient(trust_env=False, headers={"X-Session-API-Key": runtime["session_key"]}) as http:
        path = f"{runtime['url']}/api/conversations/{conversation['id']}/secrets"
        assert (await http.post(path, json={"secrets": secrets})).status_code == 200


def counted_at_listener() -> int:
    """Packets that came to the runtime-facing listener through the rules of a bridge."""
    found = run("iptables", "-w", "-t", "filter", "-n", "-v", "-x", "-L")
    counts = [int(line.split()[0]) for line in found.splitlines() if re.search(r"ACCEPT .*tcp dpt:\d+", line)]
    return max(counts, default=0)
