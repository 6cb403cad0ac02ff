"""/api/settings/secrets against the contract's captured answers and its rules."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.anyio
Sample = Callable[[str], dict[str, Any]]
SECRETS = "/api/settings/secrets"


async def put(client: httpx.AsyncClient, name: str, value: str = "v", **more: Any) -> httpx.Response:
    return await client.put(SECRETS, json={"name": name, "value": value, **more})


@pytest.mark.parametrize(
    "name",
    [
        "03-secrets-list-empty",
        "03-secret-put",
        "03-secret-put-422",
        "03-secrets-list",
        "03-secret-get",
        "03-secret-get-404",
        "03-secret-get-422",
        "03-secret-delete",
        "03-secret-delete-404",
    ],
)
async def test_answers_are_the_captured_ones(client: httpx.AsyncClient, sample: Sample, name: str) -> None:
    if name not in {"03-secrets-list-empty", "03-secret-delete-404"}:
        await put(client, "MY_PROJECT_TOKEN", "super-secret-token-12345", description="Example project token")
        await put(client, "NODESC", "x", description="now")
    captured = sample(name)
    request = captured["request"]
    answer = await client.request(request["method"], request["path"], json=request.get("body"))
    body = answer.text if isinstance(captured["response"]["body"], str) else answer.json()
    assert (answer.status_code, body) == (captured["response"]["status"], captured["response"]["body"])
    assert answer.headers["content-type"] == captured["response"]["content_type"]


async def test_a_replaced_secret_keeps_its_place(client: httpx.AsyncClient) -> None:
    for name in ("B", "A", "B"):
        await put(client, name, f"value of {name}", description=None)
    listed = (await client.get(SECRETS)).json()["secrets"]
    assert [entry["name"] for entry in listed] == ["B", "A"]


@pytest.mark.parametrize(("name", "status"), [("a" * 64, 200), ("a" * 65, 422), ("_a", 422), ("a\n", 422), ("é", 422)])
async def test_names_follow_the_rule(client: httpx.AsyncClient, name: str, status: int) -> None:
    assert (await put(client, name)).status_code == status


@pytest.mark.parametrize("name", ["a%0A", "a%00", "..%2F..%2Fetc", "a.b"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_names_in_paths_follow_the_rule(client: httpx.AsyncClient, method: str, name: str) -> None:
    assert (await client.request(method, f"{SECRETS}/{name}")).status_code in {404, 422}


@pytest.mark.parametrize("value", ["", "  ", "**********", "a\0b"])
async def test_values_that_are_none_are_refused(client: httpx.AsyncClient, value: str) -> None:
    assert (await put(client, "A", value)).status_code == 422
    assert (await client.get(f"{SECRETS}/A")).status_code == 404


async def test_a_value_of_another_type_is_a_validation_list_without_it(client: httpx.AsyncClient) -> None:
    answer = await client.put(SECRETS, json={"name": "A", "value": 123456789})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "value"]
    assert "123456789" not in answer.text
    assert (await client.put(SECRETS, json={"name": "A"})).json()["detail"][0]["type"] == "missing"


@pytest.mark.parametrize("value", ["line one\nline two\n", "ünï → 字 😀", " spaced ", "gAAAAAnot-a-token", '{"a": 1}'])
async def test_a_value_comes_back_as_it_was(client: httpx.AsyncClient, value: str) -> None:
    await put(client, "A", value)
    answer = await client.get(f"{SECRETS}/A")
    assert answer.text == value
    assert answer.headers["cache-control"] == "no-store"
