"""What the served document shows as requests is taken as it stands by the orchestrator that serves it."""

import pytest
from support.orchestrators import OPERATOR_KEY, Nestor

pytestmark = pytest.mark.anyio
#: in the order in which somebody would: what is made first is named in the paths of what follows
STORY = """
POST /tenants
PATCH /tenants/{tenant}
POST /tenants/{tenant}/users
POST /tenants/{tenant}/api-keys
PATCH /settings
PUT /secrets/{name}
PUT /git-providers/{provider}
POST /webhooks
PATCH /webhooks/{webhook}
POST /webhooks/{webhook}/rotate
POST /conversations
PUT /conversations/{conversation}
PATCH /conversations/{conversation}
PUT /conversations/{conversation}/labels
POST /conversations/{conversation}/messages
POST /conversations/{conversation}/links
POST /runtimes
PATCH /runtimes/{runtime}
PUT /runtimes/{runtime}/labels
POST /runtimes/{runtime}/links
POST /conversations/{conversation}/upgrade
POST /runtimes/{runtime}/upgrade
""".split("\n")[1:-1]
#: whose runtimes the fake driver has not
ELSEWHERE = {("POST", "/conversations/{conversation}/fork")}
#: refused for the state that it is in, or as the fake driver has no images; not for what was sent
REFUSED = {"upgrade": {"conflict", "invalid_request"}}


async def test_what_is_shown_can_be_sent(nestor: Nestor) -> None:
    document = (await nestor.http.get("/openapi.json")).json()
    shown = {
        (method.upper(), path.removeprefix("/api/v2")): operation["requestBody"]["content"]["application/json"][
            "example"
        ]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if path.startswith("/api/v2/") and "application/json" in operation.get("requestBody", {}).get("content", {})
    }
    story = [(method, path) for method, path in (line.split() for line in STORY)]
    assert set(story) == set(shown) - ELSEWHERE
    key, known = OPERATOR_KEY, {"name": "REGISTRY_TOKEN", "provider": "github"}
    for method, path in story:
        verb = path.rpartition("/")[2]
        if verb == "links":
            kind = path.split("/")[1]
            await nestor.call(
                "POST", f"/api/v2/{kind}/{known[kind[:-1]]}/resume?wait=ready&timeout=60", key, status=200
            )
        response = await nestor.http.request(
            method, f"/api/v2{path.format(**known)}", headers=nestor.as_(key), json=shown[method, path]
        )
        answer = response.json()
        if verb in REFUSED:
            assert answer["code"] in REFUSED[verb], answer
            continue
        assert response.is_success, (method, path, answer)
        if method == "POST" and verb in ("tenants", "webhooks", "conversations", "runtimes"):
            known[verb[:-1]] = answer["id"]
        if verb == "api-keys":
            key = answer["key"]
