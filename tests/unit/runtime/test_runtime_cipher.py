"""Tokens: the contract's format, rotation, and what happens without a key."""

import base64
import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher as RawCipher
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from runtime.store.cipher import Cipher, EncryptionUnavailable, Undecryptable

KEY = SecretStr("a secret key, ünicode too")


@given(st.text())
def test_what_was_encrypted_comes_back(text: str) -> None:
    cipher = Cipher(KEY)
    token = cipher.encrypt(text)
    assert Cipher.looks_encrypted(token)
    assert cipher.decrypt(token) == text


def test_the_token_is_laid_out_as_the_contract_says() -> None:
    digest = hashlib.sha256(KEY.get_secret_value().encode()).digest()
    raw = base64.urlsafe_b64decode(Cipher(KEY).encrypt("value"))
    body, signature = raw[:-32], raw[-32:]
    assert raw[0] == 0x80
    assert hmac.digest(digest[:16], body, "sha256") == signature
    decryptor = RawCipher(algorithms.AES(digest[16:]), modes.CBC(body[9:25])).decryptor()
    unpadder = padding.PKCS7(128).unpadder()
    padded = decryptor.update(body[25:]) + decryptor.finalize()
    assert unpadder.update(padded) + unpadder.finalize() == b"value"


def test_two_tokens_of_one_value_differ() -> None:
    cipher = Cipher(KEY)
    assert cipher.encrypt("value") != cipher.encrypt("value")


def test_earlier_keys_only_decrypt() -> None:
    old, older, new = SecretStr("old"), SecretStr("older"), SecretStr("new")
    rotated = Cipher(new, [old, older])
    for key in (old, older):
        token = Cipher(key).encrypt("value")
        assert rotated.decrypt(token) == "value"
        assert not rotated.is_current(token)
    fresh = rotated.encrypt("value")
    assert rotated.is_current(fresh)
    with pytest.raises(Undecryptable):
        Cipher(old).decrypt(fresh)


@pytest.mark.parametrize("token", ["", "gAAAAA", "gAAAAAé", "gAAAAA\ud800", "plain text"])
def test_what_is_no_token_is_undecryptable(token: str) -> None:
    with pytest.raises(Undecryptable):
        Cipher(KEY).decrypt(token)
    assert not Cipher(KEY).is_current(token)


def test_a_changed_token_is_undecryptable() -> None:
    token = Cipher(KEY).encrypt("value")
    changed = token[:40] + ("A" if token[40] != "A" else "B") + token[41:]
    with pytest.raises(Undecryptable):
        Cipher(KEY).decrypt(changed)


def test_without_a_current_key_nothing_is_opened_or_sealed() -> None:
    keyless = Cipher(None, [KEY])
    assert not keyless.available
    with pytest.raises(EncryptionUnavailable):
        keyless.encrypt("value")
    with pytest.raises(EncryptionUnavailable):
        keyless.decrypt(Cipher(KEY).encrypt("value"))
