"""The text of API keys."""

import pytest

from orchestrator.domain.errors import Misconfigured
from orchestrator.domain.ids import KeyId, RuntimeId, new_uuid
from orchestrator.domain.secrets import SecretText
from orchestrator.domain.tenancy import KeyKind
from orchestrator.security.session_keys import (
    check_operator_key,
    hash_key,
    hash_secret,
    matches,
    mint,
    mint_session,
    parse,
    runtime_of,
)


@pytest.mark.parametrize("kind", list(KeyKind))
def test_a_minted_key_tells_its_kind_and_id_and_matches_its_hash_only(kind: KeyKind) -> None:
    for _ in range(50):  # the random part may hold any of its letters anywhere
        id = KeyId(new_uuid())
        key = mint(kind, id)
        assert key.open().startswith(f"nst_{kind}_{id.replace('-', '')}_")
        parsed = parse(key.open())
        assert parsed is not None
        assert (parsed.kind, parsed.id) == (kind, id)
        stored = hash_secret(parsed.secret)
        assert matches(parsed.secret, stored)
        assert not matches(SecretText(parsed.secret.open()[:-1] + "."), stored)
        assert parsed.secret.open() not in repr(parsed) + stored


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text + "x",
        lambda text: text[:-1],
        lambda text: " " + text,
        lambda text: text + "\n",
        lambda text: text.replace("nst_op", "nst_root"),
        lambda text: text.replace("nst_", "NST_"),
        lambda text: text[:7] + text[7:39].upper().replace("A", "G") + text[39:],
        lambda text: text[:-1] + "é",
    ],
)
def test_what_has_another_form_is_no_key(change) -> None:
    key = mint(KeyKind.OPERATOR, KeyId("a" * 8 + "-aaaa-aaaa-aaaa-" + "a" * 12)).open()
    assert parse(key) is not None
    assert parse(change(key)) is None


def test_a_session_key_names_its_runtime_and_is_no_api_key() -> None:
    runtime = RuntimeId(new_uuid())
    key = mint_session(runtime).open()
    assert runtime_of(key) == runtime
    assert parse(key) is None
    assert mint_session(runtime).open() != key
    for other in ("", "plain-random-text", key + "x", key[:-1], key.upper(), key.replace("session", "tenant")):
        assert runtime_of(other) is None


def test_a_key_is_found_by_its_sha256() -> None:
    assert hash_key("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_an_operator_key_may_be_any_long_printable_text() -> None:
    assert check_operator_key("x" * 32).open() == "x" * 32


@pytest.mark.parametrize(
    "text", ["", "x" * 31, "x" * 31 + "é", "x" * 32 + "\n", " " + "x" * 32, "x" * 16 + "\t" + "x" * 16]
)
def test_a_weak_or_unsendable_operator_key_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        check_operator_key(text)
    assert "NESTOR_OPERATOR_KEY" in caught.value.message
    assert not text or text not in caught.value.message
