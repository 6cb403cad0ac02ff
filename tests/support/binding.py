"""The proofs of `/api/init`, made by hand: what the wire carries, told without the code of either side."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

NONCE = "nonce-of-the-tests"


def signed(key: str, *parts: str) -> str:
    return hmac.new(key.encode(), "|".join(parts).encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Answering:
    """A POST of `/api/init` that answers one challenge."""

    content: bytes
    headers: Mapping[str, str]


def answering(key: str, challenge: str, body: Any, *, nonce: str = NONCE) -> Answering:
    content = json.dumps(body).encode()
    proof = signed(key, "orchestrator", nonce, challenge, hashlib.sha256(content).hexdigest())
    return Answering(content, {"X-Init-Proof": proof, "Content-Type": "application/json"})


def challenge_in(answer: httpx.Response, key: str, *, nonce: str = NONCE) -> str:
    """The challenge that a runtime gave, which has proved that it holds the key."""
    told = answer.json()
    assert told["proof"] == signed(key, "runtime", nonce, told["challenge"])
    return str(told["challenge"])


async def bind(client: httpx.AsyncClient, key: str, body: Any, *, url: str = "/api/init") -> httpx.Response:
    """Prove and initialise, by a client that keeps its connection."""
    asked = await client.get(url, headers={"X-Init-Nonce": NONCE})
    post = answering(key, challenge_in(asked, key), body)
    return await client.post(url, headers=post.headers, content=post.content)


def bind_plainly(client: httpx.Client, key: str, body: Any) -> httpx.Response:
    """The same where nothing is awaited."""
    asked = client.get("/api/init", headers={"X-Init-Nonce": NONCE})
    post = answering(key, challenge_in(asked, key), body)
    return client.post("/api/init", headers=post.headers, content=post.content)
