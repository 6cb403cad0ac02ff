"""Turns secrets into the contract's tokens and back.

Called by everything that writes a secret to disk or sends it in its encrypted form. The key is the SHA-256 of the
configured secret key's text, the token is Fernet, so files and clients of other agent servers with the same key can be
read. It knows nothing of files or of what the secrets mean.
"""

import base64
import hashlib
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken
from pydantic import SecretStr

TOKEN_PREFIX = "gAAAAA"


class EncryptionUnavailable(Exception):
    """No secret key is configured: set OH_SECRET_KEY, or give secret_key to POST /api/init."""


class Undecryptable(Exception):
    """The token was made with another secret key, or it is damaged."""


def _fernet(key: SecretStr) -> Fernet:
    digest = hashlib.sha256(key.get_secret_value().encode()).digest()
    return Fernet(base64.urlsafe_b64encode(digest))


class Cipher:
    """Encrypts with the current key; decrypts with the current key and then with each earlier one, in order."""

    def __init__(self, current: SecretStr | None, previous: Sequence[SecretStr] = ()) -> None:
        self._current = _fernet(current) if current is not None else None
        self._previous = [_fernet(key) for key in previous]

    @property
    def available(self) -> bool:
        """Whether a current key is configured; without one nothing can be encrypted or decrypted."""
        return self._current is not None

    def encrypt(self, plaintext: str) -> str:
        """A token of its own for each call. Raises EncryptionUnavailable."""
        if self._current is None:
            raise EncryptionUnavailable
        return self._current.encrypt(plaintext.encode()).decode("ascii")

    def decrypt(self, token: str) -> str:
        """The text inside the token, however old it is. Raises Undecryptable or EncryptionUnavailable."""
        if self._current is None:
            # Earlier keys alone open nothing: what they opened could not be sealed again.
            raise EncryptionUnavailable
        for fernet in (self._current, *self._previous):
            try:
                return fernet.decrypt(token.encode()).decode()
            except (InvalidToken, UnicodeError):
                continue
        raise Undecryptable

    def is_current(self, token: str) -> bool:
        """Whether the current key made this token; a token of an earlier key should be written anew."""
        try:
            return self._current is not None and bool(self._current.extract_timestamp(token.encode()))
        except (InvalidToken, UnicodeError):
            return False

    @staticmethod
    def looks_encrypted(text: str) -> bool:
        """Whether the text starts as every token does. The prefix is the wire's only mark of an encrypted value."""
        return text.startswith(TOKEN_PREFIX)
