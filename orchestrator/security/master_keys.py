"""The operator's key-encryption keys: one that is current and older ones that still open.

Made by `app.py` from NESTOR_MASTER_KEY or from a key file, used by `envelope.py`. The keys seal nothing but data keys
and the check value; what else needs a key has one derived from them. This module must not know what is kept under them,
and never puts a key into a message.
"""

import base64
import binascii
import hashlib
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from orchestrator.domain.errors import Misconfigured, Sealed, Undecryptable

KEY_BYTES = 32
NONCE_BYTES = 12
_CHECK_AAD = b"check"
_CHECK_TEXT = b"nestor master key"
_MAKE_ONE = "make one with: head -c 32 /dev/urandom | base64 | tr '+/' '-_'"


def encode(raw: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """The inverse of `encode`, padded or not. Raises ValueError for anything outside of the alphabet."""
    stripped = text.rstrip("=")
    try:
        return base64.b64decode(stripped + "=" * (-len(stripped) % 4), altchars=b"-_", validate=True)
    except binascii.Error as exc:
        raise ValueError("not base64url") from exc


class MasterKeys:
    """One current key and any number of older ones. `repr` shows ids only."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """`keys` of 32 bytes each, the current one first. Raises ValueError when there is none or a size is wrong."""
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError("a master key has 32 bytes, and there is at least one")
        self.current_id = _key_id(keys[0])
        self._keys = tuple(keys)
        self._ciphers = {_key_id(key): AESGCM(key) for key in keys}

    @classmethod
    def parse(cls, text: str, *, source: str) -> "MasterKeys":
        """Read one base64url key of 32 bytes a line, the current one first; blank lines and lines with `#` are skipped.

        `source` names the variable or file in the `Misconfigured` that is raised when the text holds no such keys.
        """
        lines = [line.strip() for line in text.splitlines()]
        wanted = [line for line in lines if line and not line.startswith("#")]
        if not wanted:
            raise Misconfigured(f"{source} holds no master key", hint=_MAKE_ONE)
        return cls([_parse_key(line, number, source) for number, line in enumerate(wanted, start=1)])

    def wrap(self, plain: bytes, aad: bytes) -> str:
        """`<key id>.<nonce, text and tag>` under the current key."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return f"{self.current_id}.{encode(nonce + self._ciphers[self.current_id].encrypt(nonce, plain, aad))}"

    def unwrap(self, wrapped: str, aad: bytes) -> bytes:
        """The inverse of `wrap` by whichever loaded key it names. Raises `Undecryptable`."""
        key_id, _, text = wrapped.partition(".")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise Undecryptable(
                f"sealed under a master key that is not loaded (id {key_id[:8]!r})",
                hint="add that key as a further line to the master keys",
            )
        try:
            raw = decode(text)
            return cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], aad)
        except (InvalidTag, ValueError) as exc:
            raise Undecryptable("a stored key does not open: it was changed or moved") from exc

    def derived(self, purpose: str) -> tuple[bytes, ...]:
        """A key of 32 bytes for this purpose alone from each master key, the current one's first (HKDF-SHA256)."""
        info = b"nestor " + purpose.encode()
        return tuple(HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(key) for key in self._keys)

    def check_value(self) -> str:
        """A value to store once; `verify` tells by it at each start whether these are the right keys."""
        return self.wrap(_CHECK_TEXT, _CHECK_AAD)

    def verify(self, check_value: str) -> None:
        """Raises `Sealed` unless one of the loaded keys made `check_value`."""
        try:
            right = self.unwrap(check_value, _CHECK_AAD) == _CHECK_TEXT
        except Undecryptable as exc:
            raise _sealed(self.current_id) from exc
        if not right:
            raise _sealed(self.current_id)

    def __repr__(self) -> str:
        return f"MasterKeys(current={self.current_id}, older={len(self._ciphers) - 1})"


def read_key_file(path: Path) -> MasterKeys:
    """The keys in `path`. Raises `Misconfigured` when it cannot be read, holds no keys, or is open to others.

    A group may read it, because secret volumes of Kubernetes are given to a group; it may not write it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise Misconfigured(f"the master key file {path} cannot be read: {exc.strerror}") from exc
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & 0o027:
            raise Misconfigured(
                f"the master key file {path} is open to others (mode {mode:04o})", hint=f"run: chmod 0600 {path}"
            )
        return MasterKeys.parse(file.read(), source=f"the master key file {path}")


def load_or_create_key_file(path: Path) -> MasterKeys:
    """The keys in `path`, after making one there, readable by its owner only, if there is no such file.

    The file appears whole or not at all: an empty one left by a crash would lock its owner out. Two processes that
    come at once end up with the same key. Raises `Misconfigured` as `read_key_file` does.
    """
    if not path.exists():
        try:
            _create_key_file(path)
        except OSError as exc:
            raise Misconfigured(f"the master key file {path} cannot be made: {exc.strerror}") from exc
    return read_key_file(path)


def _create_key_file(path: Path) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(encode(secrets.token_bytes(KEY_BYTES)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return  # another process was first: its key is the one
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parse_key(line: str, number: int, source: str) -> bytes:
    try:
        raw = decode(line)
    except ValueError:
        raise Misconfigured(f"{source}: key {number} is not base64url", hint=_MAKE_ONE) from None
    if len(raw) != KEY_BYTES:
        raise Misconfigured(f"{source}: key {number} has {len(raw)} bytes instead of {KEY_BYTES}", hint=_MAKE_ONE)
    return raw


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"kek-id" + key).hexdigest()[:8]


def _sealed(key_id: str) -> Sealed:
    return Sealed(
        f"what is stored was sealed under another master key than those loaded (current id {key_id})",
        hint="give the former NESTOR_MASTER_KEY or NESTOR_MASTER_KEY_FILE; a new key goes on a line before it",
    )
