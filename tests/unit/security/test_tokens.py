"""Tokens that another program signed: what is good, each way of forging one, and what becomes of keys."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.issuer import AUDIENCE, FITTING, ISSUER, Signer, claims, unsigned

from orchestrator.domain.errors import KeysUnavailable, Unauthenticated
from orchestrator.security import jwks
from orchestrator.security.token_keys import BETWEEN_SECONDS, TokenKeys
from orchestrator.security.tokens import MAXIMUM_CHARACTERS, Expected, Tokens

pytestmark = pytest.mark.anyio
RSA, FIRST, SECOND = Signer("RSA", "rsa"), Signer(), Signer("P-256", "second")
EXPECTED = Expected(ISSUER, AUDIENCE, leeway=30, longest=3600)
FRESH, KEPT = 300.0, 900.0


@dataclass
class Issuer:
    """Where keys are fetched, and the clock by which they grow old."""

    keys: list[dict[str, Any]] = field(default_factory=lambda: [FIRST.jwk(), RSA.jwk()])
    calls: int = 0
    away: bool = False
    now: float = 1000.0
    held: anyio.Event | None = None

    async def fetch(self) -> bytes:
        self.calls += 1
        if self.held is not None:
            await self.held.wait()
        if self.away:
            raise KeysUnavailable("away")
        return json.dumps({"keys": self.keys}).encode()

    def tokens(self) -> Tokens:
        return Tokens(TokenKeys(self.fetch, fresh=FRESH, kept=KEPT, now=lambda: self.now), EXPECTED)


async def refusal(tokens: Tokens, text: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await tokens.claims(text)
    return caught.value.message


@pytest.mark.parametrize("kind", FITTING)
async def test_each_asymmetric_algorithm_is_taken_with_its_own_kind_of_key_alone(kind: str) -> None:
    signer = RSA if kind == "RSA" else Signer(kind, "one")
    tokens = Issuer([signer.jwk()]).tokens()
    for algorithm in FITTING[kind]:
        assert (await tokens.claims(signer.sign(claims(), algorithm=algorithm)))["sub"] == "ann"
    other = "ES256" if kind == "RSA" else "RS256"
    assert "not known" in await refusal(tokens, unsigned(claims(), {"alg": other, "kid": signer.id}))


@pytest.mark.parametrize(
    ("said", "forge"),
    [
        ("algorithm", lambda: unsigned(claims(), {"alg": "none", "kid": "first"})),
        ("algorithm", lambda: unsigned(claims(), {"alg": "None"})),
        ("algorithm", lambda: unsigned(claims(), {"kid": "first"})),
        ("algorithm", lambda: unsigned(claims(), {"alg": "HS256", "kid": "rsa"}, _pem())),
        ("algorithm", lambda: unsigned(claims(), {"alg": ["EdDSA"], "kid": "first"})),
        ("cannot be verified", lambda: unsigned(claims(), {"alg": "EdDSA", "kid": "first"}, b"x")),
        ("cannot be verified", lambda: Signer().sign(claims())),
        ("cannot be verified", lambda: _with_other_claims(FIRST.sign(claims()), claims(sub="eve"))),
        ("not known", lambda: FIRST.sign(claims(), kid="nobody's")),
        ("not known", lambda: Signer(id=None).sign(claims())),
        ("not known", lambda: FIRST.sign(claims(), kid="rsa")),
        ("cannot be verified", lambda: Signer().sign(claims(), jwk=Signer().jwk(), jku="http://127.0.0.1:1/")),
        ("", lambda: FIRST.sign(claims(), crit=["exp"], exp=1)),
        ("crit", lambda: unsigned(claims(), {"alg": "EdDSA", "kid": "first", "b64": True, "crit": ["b64"]})),
        ("", lambda: unsigned(claims(), {"alg": "EdDSA", "kid": "first", "b64": False, "crit": ["b64"]})),
        ("something else", lambda: FIRST.sign(claims(), typ="logout+jwt")),
        ("another issuer", lambda: FIRST.sign(claims(iss=ISSUER.rstrip("/")))),
        ("another issuer", lambda: FIRST.sign(claims(iss="https://evil.example/"))),
        ("another audience", lambda: FIRST.sign(claims(aud="another"))),
        ("another audience", lambda: FIRST.sign(claims(aud=["nestor2", "nest"]))),
        ("lacks", lambda: FIRST.sign(claims(aud=None))),
        ("lacks", lambda: FIRST.sign(claims(exp=None))),
        ("lacks", lambda: FIRST.sign(claims(sub=None))),
        ("expired", lambda: FIRST.sign(claims(exp=int(time.time()) - 60, iat=None))),
        ("not good yet", lambda: FIRST.sign(claims(nbf=int(time.time()) + 90))),
        ("not good yet", lambda: FIRST.sign(claims(iat=int(time.time()) + 90))),
        ("longer than 3600", lambda: FIRST.sign(claims(exp=int(time.time()) + 9000, iat=None))),
        ("longer than 3600", lambda: FIRST.sign(claims(iat=int(time.time()) - 3600))),
        ("longer than 8192", lambda: FIRST.sign(claims(more="x" * MAXIMUM_CHARACTERS))),
        ("cannot be read", lambda: "a.b.c"),
        ("cannot be read", lambda: "..",),
        ("cannot be read", lambda: unsigned(claims(), {"alg": "EdDSA"}).replace("ey", "Ω", 1)),
    ],
)  # fmt: skip
async def test_what_is_forged_or_not_for_here_is_refused_and_told_why(said: str, forge: Callable[[], str]) -> None:
    tokens = Issuer().tokens()
    assert said in await refusal(tokens, forge())
    assert (await tokens.claims(FIRST.sign(claims())))["sub"] == "ann"


@pytest.mark.parametrize("value", [float("inf"), float("nan"), "soon", [], {}, 10**400])
@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
async def test_times_that_are_no_times_are_refused(name: str, value: Any) -> None:
    await refusal(Issuer().tokens(), FIRST.sign(claims() | {name: value}))


async def test_within_the_leeway_and_with_a_list_of_audiences_it_is_good() -> None:
    now = int(time.time())
    sent = claims(aud=["other", AUDIENCE], exp=now - 5, iat=now - 600, nbf=now - 600)
    assert (await Issuer().tokens().claims(FIRST.sign(sent, typ="at+jwt")))["exp"] == now - 5


def test_keys_that_verify_nothing_here_are_passed_over() -> None:
    good = FIRST.jwk()
    listed: list[Any] = [
        good, {"kty": "oct", "k": "c2VjcmV0", "kid": "s"}, RSA.jwk(use="enc"), RSA.jwk(alg="HS256"),
        RSA.jwk(alg="RSA-OAEP"), RSA.jwk(key_ops=["encrypt"]), _private(SECOND), RSA.jwk(n="AQAB"), RSA.jwk(kid=7),
        SECOND.jwk(crv="P-384"), SECOND.jwk(crv="secp256k1"), SECOND.jwk(y="AQAB"), {"kty": ["RSA"]}, {}, "x", None,
    ]  # fmt: skip
    found = jwks.read(json.dumps({"keys": listed}).encode())
    assert [key.id for key in found.keys] == ["first"]
    assert found.passed_over == len(listed) - 1


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"keys": 1}', b"[" * 100_000, b'{"keys":[%s1]}' % (b"1," * 100)]
)
def test_what_is_no_key_set_is_told(body: bytes) -> None:
    with pytest.raises(ValueError, match="keys"):
        jwks.read(body)


async def test_a_key_without_a_name_is_good_while_it_is_the_only_one() -> None:
    nameless = Signer(id=None)
    tokens = Issuer([nameless.jwk()]).tokens()
    await tokens.claims(nameless.sign(claims()))
    tokens = Issuer([nameless.jwk(), RSA.jwk()]).tokens()
    assert "not known" in await refusal(tokens, nameless.sign(claims()))


async def test_a_new_key_is_fetched_when_it_shows_and_an_old_one_goes_with_the_next_fetch() -> None:
    issuer = Issuer()
    tokens = issuer.tokens()
    old = FIRST.sign(claims())
    await tokens.claims(old)
    issuer.keys, issuer.now = [SECOND.jwk()], issuer.now + BETWEEN_SECONDS
    assert (await tokens.claims(SECOND.sign(claims())))["sub"] == "ann"
    assert "not known" in await refusal(tokens, old)
    assert issuer.calls == 2


async def test_keys_are_fetched_again_when_they_are_old_and_not_before() -> None:
    issuer = Issuer()
    tokens, text = issuer.tokens(), FIRST.sign(claims())
    for _ in range(50):
        await tokens.claims(text)
    assert issuer.calls == 1
    issuer.keys, issuer.now = [RSA.jwk()], issuer.now + FRESH + 1
    assert "not known" in await refusal(tokens, text)


async def test_forged_names_of_keys_make_no_storm() -> None:
    issuer = Issuer()
    tokens = issuer.tokens()
    await tokens.claims(FIRST.sign(claims()))
    issuer.now += BETWEEN_SECONDS
    async with anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(refusal, tokens, FIRST.sign(claims(), kid=f"forged-{number}"))
    assert issuer.calls == 2


async def test_in_an_outage_the_last_keys_are_good_for_a_bounded_time_and_recover() -> None:
    issuer = Issuer()
    tokens, text = issuer.tokens(), FIRST.sign(claims())
    await tokens.claims(text)
    issuer.away, issuer.now = True, issuer.now + FRESH + KEPT - 1
    for _ in range(50):
        await tokens.claims(text)
    assert issuer.calls == 2  # asked once, and not for every request
    issuer.now += 2
    with pytest.raises(KeysUnavailable):
        await tokens.claims(text)
    issuer.away, issuer.now = False, issuer.now + BETWEEN_SECONDS
    await tokens.claims(text)


async def test_while_keys_are_fetched_again_others_go_on_with_the_last_ones() -> None:
    issuer = Issuer()
    tokens, text = issuer.tokens(), FIRST.sign(claims())
    await tokens.claims(text)
    issuer.held, issuer.now = anyio.Event(), issuer.now + FRESH + 1
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tokens.claims, text)
        with anyio.fail_after(30):
            while issuer.calls < 2:
                await anyio.lowlevel.checkpoint()
            await tokens.claims(text)  # would wait for ever
        issuer.held.set()


def _private(signer: Signer) -> dict[str, Any]:
    """Both halves, as a set should never have them."""
    algorithm = jwt.get_algorithm_by_name(FITTING[signer.kind][0])
    return {**algorithm.to_jwk(signer.private, as_dict=True), "kid": "private"}


def _pem() -> bytes:
    public: bytes = RSA.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public


def _with_other_claims(text: str, claims: dict[str, Any]) -> str:
    head, _, mac = text.split(".")
    return f"{head}.{unsigned(claims, {}).split('.')[1]}.{mac}"
