"""The init key of a dormant runtime: where it comes from, and what it proves.

It reaches the process by an inherited descriptor, a file, or the one line on standard input that the container's driver
writes after the start: then it is a boot key, which never travels, and both sides prove that they hold it. In the
contract's own form, where the configuration says `deferred_init`, the caller sends the key itself. It is never shown,
and forgotten once the runtime is initialised.
"""

import hashlib
import hmac
import os
import threading
from pathlib import Path

import structlog
from pydantic import SecretStr

from runtime.connection import Challenge

log = structlog.get_logger()

LONGEST_KEY = 4096


class InitKey:
    """A key that may arrive after the server started. Thread-safe. Until it is there, nothing is accepted.

    `travels` says that a caller may send the key itself, as the contract has it.
    """

    def __init__(self, key: SecretStr | None = None, *, travels: bool = False) -> None:
        self._key: bytes | None = None
        self.travels = travels
        if key is not None:
            self.set(key)

    def set(self, key: SecretStr) -> None:
        self._key = key.get_secret_value().encode()

    def forget(self) -> None:
        """Accept nothing and prove nothing any more: the key is good for one initialisation."""
        self._key = None

    def accepts(self, candidate: str | None) -> bool:
        """Whether this is the key."""
        key = self._key
        return key is not None and hmac.compare_digest((candidate or "").encode(errors="surrogatepass"), key)

    def proof(self, challenge: Challenge) -> str | None:
        """Hex HMAC-SHA256 that shows the caller that this is its runtime, before it sends anything here."""
        return self._signed(f"runtime|{challenge.nonce}|{challenge.text}")

    def accepts_proof(self, candidate: str, challenge: Challenge, body: bytes) -> bool:
        """Whether whoever sends this body holds the key, and answers this challenge."""
        digest = hashlib.sha256(body).hexdigest()
        expected = self._signed(f"orchestrator|{challenge.nonce}|{challenge.text}|{digest}")
        return expected is not None and hmac.compare_digest(candidate.encode(errors="surrogatepass"), expected.encode())

    def _signed(self, text: str) -> str | None:
        key = self._key
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest() if key is not None else None


def key_from_descriptor(descriptor: int) -> InitKey:
    """The key that one line on this descriptor will bring; the descriptor is closed after it.

    Returns at once: a container's key comes only after the server has started to answer. A thread waits for it, which
    dies with the process.
    """
    key = InitKey()
    threading.Thread(target=_receive, args=(descriptor, key), name="init-key", daemon=True).start()
    return key


def key_from_file(path: Path) -> InitKey:
    """The key in the first line of a file. Raises OSError, or ValueError when the file holds none."""
    with path.open("rb") as stream:
        text = stream.readline(LONGEST_KEY).decode().strip()
    if not text:
        raise ValueError(f"{path} holds no key")
    return InitKey(SecretStr(text))


def _receive(descriptor: int, key: InitKey) -> None:
    line = b""
    try:
        while not line.endswith(b"\n") and len(line) < LONGEST_KEY:
            # Byte by byte: what follows the line on standard input is not ours to take.
            read = os.read(descriptor, 1)
            if not read:
                break
            line += read
    except OSError as exc:
        log.error("runtime.init_key_unreadable", descriptor=descriptor, error=exc.strerror)
    finally:
        _release(descriptor)
    text = line.decode(errors="replace").strip()
    if text:
        key.set(SecretStr(text))
    else:
        log.error("runtime.init_key_missing", hint="nothing came on the descriptor; the runtime stays dormant")


def _release(descriptor: int) -> None:
    if descriptor > 2:
        os.close(descriptor)
        return
    # A standard descriptor must stay occupied, or the next opened file would become standard input.
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, descriptor)
    os.close(null)
