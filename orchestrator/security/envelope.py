"""Values at rest: sealed under a data key of their tenant, bound to the place where they are stored.

Services seal what they store and open what they push into a runtime. A sealed text says under which data key it was
made and nothing else: tenant, user, kind, name and version are recomputed from where it was found, so a text that was
moved to another place does not open. The master keys (`master_keys.py`, exported here) wrap the data keys only. This
module must not know any store: it is given a `DataKeySource`.
"""

import secrets
import struct
from collections import OrderedDict
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from orchestrator.domain.errors import Undecryptable
from orchestrator.domain.ids import TenantId, UserId
from orchestrator.domain.secrets import SecretText
from orchestrator.security.master_keys import (
    KEY_BYTES,
    NONCE_BYTES,
    MasterKeys,
    decode,
    encode,
    load_or_create_key_file,
    read_key_file,
)

__all__ = ["DataKeySource", "Envelope", "MasterKeys", "load_or_create_key_file", "read_key_file"]

SCHEME = "s1"
_DATA_KEY_VERSION = 1
_CACHED_KEYS = 10_000  # about 2 MB; the rest is read again when it is needed
_ABSENT = 0xFFFFFFFF  # length prefix of "no user", which no real text can have


class DataKeySource(Protocol):
    """Where wrapped data keys are kept; `state/base.py`'s `Configuration` is one."""

    async def data_key(self, tenant: TenantId, version: int) -> str | None: ...

    async def add_data_key(self, tenant: TenantId, version: int, wrapped: str) -> str: ...


class Envelope:
    """Seals and opens values. Safe to share between tasks; holds unwrapped data keys in memory, never values."""

    def __init__(self, master: MasterKeys, data_keys: DataKeySource) -> None:
        self._master = master
        self._source = data_keys
        self._cache: OrderedDict[tuple[TenantId, int], AESGCM] = OrderedDict()

    async def seal(
        self, tenant: TenantId, user: UserId | None, kind: str, name: str, version: int, value: SecretText
    ) -> str:
        """`s1.<data key version>.<nonce, text and tag>`; another text at each call.

        The first call for a tenant makes its data key. Raises `Undecryptable` when the tenant's data key is there but
        its master key is not (nothing is overwritten), and whatever the source raises.
        """
        cipher = await self._data_key(tenant, _DATA_KEY_VERSION, create=True)
        nonce = secrets.token_bytes(NONCE_BYTES)
        plain = value.open().encode("utf-8", "surrogatepass")
        body = cipher.encrypt(nonce, plain, _place(tenant, user, kind, name, version))
        return f"{SCHEME}.{_DATA_KEY_VERSION}.{encode(nonce + body)}"

    async def open(
        self, tenant: TenantId, user: UserId | None, kind: str, name: str, version: int, sealed: str
    ) -> SecretText:
        """The value sealed for exactly this place. Raises `Undecryptable`; never answers a wrong or an empty value."""
        data_key_version, raw = _parse(sealed, kind)
        cipher = await self._data_key(tenant, data_key_version, create=False)
        try:
            plain = cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _place(tenant, user, kind, name, version))
        except (InvalidTag, ValueError) as exc:
            raise Undecryptable(f"a stored {kind} does not open: it was changed or moved") from exc
        return SecretText(plain.decode("utf-8", "surrogatepass"))

    async def _data_key(self, tenant: TenantId, version: int, *, create: bool) -> AESGCM:
        cached = self._cache.get((tenant, version))
        if cached is not None:
            self._cache.move_to_end((tenant, version))
            return cached
        aad = f"dek|{tenant}|{version}".encode()
        wrapped = await self._source.data_key(tenant, version)
        if wrapped is None:
            if not create:
                raise Undecryptable("the tenant's data key is gone: what was sealed under it cannot be opened")
            # Another replica may be first: the key that the source answers is the one.
            wrapped = await self._source.add_data_key(
                tenant, version, self._master.wrap(secrets.token_bytes(KEY_BYTES), aad)
            )
        cipher = AESGCM(self._master.unwrap(wrapped, aad))
        self._cache[tenant, version] = cipher
        if len(self._cache) > _CACHED_KEYS:
            self._cache.popitem(last=False)
        return cipher


def _parse(sealed: str, kind: str) -> tuple[int, bytes]:
    scheme, _, rest = sealed.partition(".")
    version, _, text = rest.partition(".")
    if scheme != SCHEME or not version.isascii() or not version.isdigit():
        raise Undecryptable(f"a stored {kind} is not sealed in a form that this version knows")
    try:
        return int(version), decode(text)
    except ValueError:
        raise Undecryptable(f"a stored {kind} is damaged") from None


def _place(tenant: TenantId, user: UserId | None, kind: str, name: str, version: int) -> bytes:
    """The associated data. Each part has its length in front, so that no two places give the same bytes."""
    parts = (SCHEME, tenant, user, kind, name, str(version))
    return b"".join(_prefixed(part) for part in parts)


def _prefixed(part: str | None) -> bytes:
    if part is None:
        return struct.pack(">I", _ABSENT)
    raw = part.encode()
    return struct.pack(">I", len(raw)) + raw
