"""Somebody else's program that signs tokens, with real keys and a real server for its key set on loopback."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ISSUER, AUDIENCE = "https://login.example.org/", "nestor"
_KINDS = {
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}
FITTING = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA",),
}


class Signer:
    """One pair of keys."""

    def __init__(self, kind: str = "Ed25519", id: str | None = "first") -> None:
        self.kind, self.id = kind, id
        self.private: Any = _KINDS[kind]()

    def jwk(self, **more: Any) -> dict[str, Any]:
        """The public half, as a set has it."""
        algorithm = jwt.get_algorithm_by_name(FITTING[self.kind][0])
        named = {} if self.id is None else {"kid": self.id}
        return {**algorithm.to_jwk(self.private.public_key(), as_dict=True), **named, "use": "sig"} | more

    def sign(self, claims: dict[str, Any], *, algorithm: str | None = None, **head: Any) -> str:
        named = {} if self.id is None else {"kid": self.id}
        return jwt.encode(claims, self.private, algorithm or FITTING[self.kind][0], headers=named | head)


def claims(**more: Any) -> dict[str, Any]:
    """Good ones. None takes one out."""
    now = int(time.time())
    every = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 600} | more
    return {name: value for name, value in every.items() if value is not None}


def unsigned(claims: dict[str, Any], head: dict[str, Any], secret: bytes | None = None) -> str:
    """Made by hand: without a signature, or with an HMAC by `secret`."""
    signed = ".".join(_url(json.dumps(part).encode()) for part in (head, claims))
    mac = b"" if secret is None else hmac.digest(secret, signed.encode(), hashlib.sha256)
    return f"{signed}.{_url(mac)}"


def _url(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


class KeySetServer:
    """`body` is what it answers, `status` with what; `calls` how often it was asked."""

    def __init__(self) -> None:
        self.body, self.status, self.calls, self.url = b"", 200, 0, ""

    def publish(self, *keys: dict[str, Any]) -> None:
        self.body = json.dumps({"keys": keys}).encode()


@contextmanager
def key_set_server() -> Iterator[KeySetServer]:
    server = KeySetServer()

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.calls += 1
            self.send_response(server.status)
            self.send_header("content-length", str(len(server.body)))
            self.end_headers()
            self.wfile.write(server.body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as listening:
        server.url = f"http://127.0.0.1:{listening.server_address[1]}/jwks.json"
        thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()
