"""The network that a runtime will be put on, looked at in a thread of its own before anybody waits for it."""

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from orchestrator.domain.ids import RuntimeId
from orchestrator.drivers.docker_network import Network
from orchestrator.drivers.values import OwnerLabels

log = structlog.get_logger(__name__)
#: for which what was seen ahead is good: a container is made within a small part of it
_GOOD_SECONDS: Final = 1.0
_MOST: Final = 512
Look = Callable[[OwnerLabels], tuple[str, Network]]  #: the cell's key and its network, behind the wall


class _Seen:
    """One look, under way or over."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.over = threading.Event()
        self.found: tuple[str, Network, float] | None = None


class Ahead:
    """Looks of one installation. Safe to use from many threads."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._seen: dict[RuntimeId, _Seen] = {}

    def begin(self, labels: OwnerLabels) -> None:
        """Look now, unless somebody has just begun to. Returns at once; what fails is told to nobody."""
        self._begun(labels)

    def wait(self, labels: OwnerLabels) -> None:
        """As `begin`, and returns when the look is over."""
        self._begun(labels).over.wait()

    def take(self, labels: OwnerLabels, key: str) -> Network | None:
        """What was found, once; None where there is nothing, nothing fresh, or another cell by now."""
        with self._lock:
            seen = self._seen.pop(labels.runtime, None)
        if seen is None or seen.found is None:
            return None
        found, network, when = seen.found
        return network if found == key and time.monotonic() - when <= _GOOD_SECONDS else None

    def _begun(self, labels: OwnerLabels) -> _Seen:
        with self._lock:
            seen = self._seen.get(labels.runtime)
            if seen is not None and (not seen.over.is_set() or time.monotonic() - seen.began <= _GOOD_SECONDS):
                return seen
            seen = self._seen[labels.runtime] = _Seen()
            if len(self._seen) > _MOST:
                del self._seen[next(iter(self._seen))]
        threading.Thread(target=self._run, args=(labels, seen), name="driver", daemon=True).start()
        return seen

    def _run(self, labels: OwnerLabels, seen: _Seen) -> None:
        try:
            key, network = self._look(labels)
            seen.found = key, network, time.monotonic()
        except Exception as exc:  # noqa: BLE001 - a thread of its own, of which nobody hears; who makes it asks again
            log.debug("cell.not_seen_ahead", problem=type(exc).__name__)
        finally:
            seen.over.set()
