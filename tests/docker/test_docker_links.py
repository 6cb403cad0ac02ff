"""Files, links, a snapshot and its fork of a conversation whose runtime is a container: the port is one of the
container's own, and a fork has a container and volumes of its own. What a sandbox is told of itself."""

from urllib.parse import urlsplit

import anyio
import pytest
from support import containers
from support.docker_nestor import Client, container_of

pytestmark = [pytest.mark.docker, pytest.mark.anyio]

SERVE = "cd /workspace/site && (python3 -m http.server 3000 --bind 127.0.0.1 >/dev/null 2>&1 &)"


async def test_a_file_that_is_written_is_served_at_a_linked_port_of_the_container(nestor: Client) -> None:
    key = await nestor.tenant()
    id = (await nestor.conversation(key))["id"]
    base, own = f"/api/v2/conversations/{id}", {"Authorization": f"Bearer {key}"}
    put = await nestor.http.put(f"{nestor.url}{base}/files/site/index.html", content=b"hello", headers=own)
    assert put.status_code == 201, put.text
    link = await nestor.call("POST", f"{base}/links", key, json={"port": 3000}, status=201)
    before = await nestor.http.get(link["url"])
    assert before.status_code == 502, before.text  # nothing listens there yet
    await nestor.run(key, id, {"tool": "terminal", "args": {"command": SERVE, "summary": "s"}})
    with anyio.fail_after(60):
        while (page := await nestor.http.get(link["url"])).status_code != 200:
            await anyio.sleep(0.1)
    assert page.text == "hello"
    assert page.headers["content-security-policy"].startswith("sandbox ")
    own_port = await nestor.call("POST", f"{base}/links", key, json={"port": 8000}, status=201)
    assert (await nestor.http.get(own_port["url"] + "alive")).status_code == 403
    assert urlsplit(link["url"]).path.startswith("/links/")
    await nestor.call("DELETE", f"{base}/links/{link['id']}", key, status=204)
    assert (await nestor.http.get(link["url"])).status_code == 404
    await is_forked(nestor, key, id)


async def is_forked(nestor: Client, key: str, id: str) -> None:
    """With log and files of a snapshot, in another container; what changes there does not change here."""
    before, own = await nestor.events(key, id), {"Authorization": f"Bearer {key}"}
    taken = await nestor.call("POST", f"/api/v2/conversations/{id}/snapshots", key, status=201)
    assert taken["at"] == len(before)
    later = f"{nestor.url}/api/v2/conversations/{id}/files/site/later.html"
    assert (await nestor.http.put(later, content=b"later", headers=own)).status_code == 201
    made = await nestor.call("POST", f"/api/v2/conversations/{id}/fork", key, json={"at": taken["at"]}, status=202)
    assert made["fork_of"]["workspace"] == "snapshot"
    fork = await nestor.until(key, made["id"], "ready")
    assert container_of(fork["id"]) != container_of(id)
    assert [event["id"] for event in await nestor.events(key, fork["id"])][: len(before)] == [e["id"] for e in before]
    assert (await nestor.http.get(later.replace(id, fork["id"]), headers=own)).status_code == 404
    page = f"{nestor.url}/api/v2/conversations/{{}}/files/site/index.html"
    assert (await nestor.http.get(page.format(fork["id"]), headers=own)).text == "hello"
    assert (await nestor.http.put(page.format(fork["id"]), content=b"other", headers=own)).status_code in (200, 204)
    assert (await nestor.http.get(page.format(id), headers=own)).text == "hello"


async def test_what_its_caller_runs_in_a_sandbox_is_a_client_of_it_and_its_key_is_nowhere_outside(
    nestor: Client,
) -> None:
    key = await nestor.tenant()
    made = await nestor.call("POST", "/api/v1/sandboxes", key, status=200)
    with anyio.fail_after(60):
        while made["status"] != "RUNNING":
            assert made["status"] == "STARTING"
            [made] = await nestor.call("GET", f"/api/v1/sandboxes?id={made['id']}", key, status=200)
    [server], own = made["exposed_urls"], made["session_api_key"]
    asked = 'curl -so /dev/null -w %{http_code} -H "X-Session-API-Key: $SESSION_API_KEY" '
    asked += 'localhost:$AGENT_SERVER_PORT/api/settings; echo " $SANDBOX_ID $SESSION_API_KEY"'
    sent = {"json": {"command": asked, "timeout": 30}, "headers": {"X-Session-API-Key": own}}
    ran = await nestor.http.post(f"{server['url']}/api/bash/execute_bash_command", **sent)
    assert ran.json()["stdout"] == f"200 {made['id']} <secret-hidden>\n"
    told = containers.docker("inspect", container_of(made["id"]))
    assert made["id"] in told
    assert own not in told
