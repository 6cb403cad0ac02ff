"""A replica that dies at a chosen call, or loses a chosen reply: all that it does to others goes through here."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from orchestrator.domain.errors import DriverUnavailable, RuntimeUnreachable, StoreUnavailable
from orchestrator.drivers.fake import FakeDriver
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.nested.binding import ConnectionLost, OneConnection
from orchestrator.nested.client import RuntimeClients
from orchestrator.nested.exchange import Exchange

_VERBS = ("ensure_volume", "remove_volume", "create", "start", "inspect", "logs", "destroy", "pause", "unpause", "find")


class Killed(BaseException):
    """Nothing of this replica runs after it."""


class Mortal:
    """Lets calls through until the `at`-th. Behind that call's work the replica is dead for good; or, with `loses`,
    that one reply never arrives, and the replica goes on. 0: nothing happens."""

    def __init__(self, at: int = 0, *, loses: bool = False) -> None:
        self._left, self._loses = at, loses
        self.may_strike = at > 0
        self.dead = False
        self.struck = False  #: the chosen call was made

    async def call(
        self, lost: Callable[[], Exception], act: Callable[..., Awaitable[Any]], *given: Any, **named: Any
    ) -> Any:
        if self.dead:
            raise Killed
        self._left -= 1
        strikes = self._left == 0
        self.struck |= strikes
        self.dead = strikes and not self._loses
        answer = await act(*given, **named)
        if self.dead:
            raise Killed
        if strikes:
            raise lost()
        return answer

    def over(self, thing: Any) -> Any:
        """One room of a store."""
        return _Watched(thing, self)

    def store(self, store: Any) -> Any:
        """A whole store."""
        return _Rooms(store, self)

    def driver(self, engine: FakeEngine) -> FakeDriver:
        driver = FakeDriver(engine)
        for verb in _VERBS:
            setattr(driver, verb, partial(self.call, _driver_lost, getattr(driver, verb)))
        return driver

    def clients(self) -> RuntimeClients:
        """To runtimes."""
        return RuntimeClients(exchange=partial(_Exchange, self), connect=partial(_Connection, self))


class _Watched:
    def __init__(self, thing: Any, mortal: Mortal) -> None:
        self._thing, self._mortal = thing, mortal

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._thing, name)
        return partial(self._mortal.call, _store_lost, found) if callable(found) else found


class _Rooms:
    def __init__(self, store: Any, mortal: Mortal) -> None:
        self._store, self._mortal = store, mortal

    def __getattr__(self, name: str) -> Any:
        return _Watched(getattr(self._store, name), self._mortal)


class _Exchange(Exchange):
    """Requests to runtimes, likewise."""

    def __init__(self, mortal: Mortal, origin: str) -> None:
        super().__init__(origin)
        self._mortal = mortal

    async def ask(self, *given: Any, **named: Any) -> tuple[int, bytes]:
        answer: tuple[int, bytes] = await self._mortal.call(_wire_lost, super().ask, *given, **named)
        return answer


class _Connection(OneConnection):
    """The one on which a runtime is bound, likewise."""

    def __init__(self, mortal: Mortal, origin: str) -> None:
        super().__init__(origin)
        self._mortal = mortal

    async def ask(self, method: str, headers: Any, content: bytes = b"") -> tuple[int, bytes]:
        answer: tuple[int, bytes] = await self._mortal.call(_binding_lost, super().ask, method, headers, content)
        return answer


def _store_lost() -> Exception:
    return StoreUnavailable("the state server did not answer in time")


def _driver_lost() -> Exception:
    return DriverUnavailable("the engine did not answer in time")


def _wire_lost() -> Exception:
    return RuntimeUnreachable("the connection was lost")


def _binding_lost() -> Exception:
    return ConnectionLost("the connection was lost")
