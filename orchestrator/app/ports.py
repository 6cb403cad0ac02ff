"""One listener a runtime, for clients that need a bare origin. The port is in the record, so it is found again.

`expose` is called from the saga, from every round of tending and from the reconciler; it opens what is not open. The
port of a conversation that policy put to rest stays open also when its runtime is removed: who uses it there wakes it.
Such ones are given up, the longest asleep first, where ports or open files run out.
"""

from collections.abc import Callable
from contextlib import suppress

import structlog

from orchestrator.app.descriptors import shares
from orchestrator.domain.conversation import Conversation, put_to_rest
from orchestrator.domain.errors import NestorError
from orchestrator.domain.ids import RuntimeId
from orchestrator.proxy.ports import PortListener
from orchestrator.services.resting import may_wake
from orchestrator.state.base import Conversations

log = structlog.get_logger(__name__)
Listen = Callable[[RuntimeId, int], PortListener]  #: on that port, 0 for a free one; raises OSError when it is taken
_HINT = "raise the limit of open files (ulimit -n), or have fewer runtimes; by /runtimes/{id} they are reached anyway"


class PublicPorts:
    """The listeners of this replica. Without `listen_with` there are none, and a record keeps the port it has."""

    def __init__(self, *, most_sleeping: int | None = None) -> None:
        self._most_sleeping = shares().sleeping if most_sleeping is None else most_sleeping
        self._listen: Listen | None = None
        self._open: dict[RuntimeId, PortListener] = {}
        self._sleeping: dict[RuntimeId, None] = {}  #: those of `_open` whose runtimes are gone, in order
        self._without: set[RuntimeId] = set()  #: runtimes for which there was no port

    @property
    def problem(self) -> str | None:
        """In words that may be shown; None when every runtime has its port."""
        return f"no port is left for {len(self._without)} runtimes: {_HINT}" if self._without else None

    def listen_with(self, listen: Listen) -> None:
        """From now on ports are opened by `listen`."""
        self._listen = listen

    def expose(self, conversation: Conversation) -> int:
        """The port of this runtime, opened if it is not; the one of the record where that is still free. 0 where there
        is none left: then it is reached by its path alone, and the next call tries again."""
        runtime = conversation.runtime
        if runtime is None or self._listen is None:
            return runtime.public_port if runtime is not None else 0
        self._sleeping.pop(runtime.id, None)
        if runtime.id in self._open:
            return self._open[runtime.id].port
        if self._opened(runtime.id, runtime.public_port) or self._opened(runtime.id, 0):
            port = self._open[runtime.id].port
            if runtime.public_port and port != runtime.public_port:
                log.warning("runtime.port_changed", runtime=runtime.id, port=port)
            self._without.discard(runtime.id)
            return port
        while self._sleeping:
            self._give_up(next(iter(self._sleeping)))
            if self._opened(runtime.id, 0):
                return self._open[runtime.id].port
        if runtime.id not in self._without:
            self._without.add(runtime.id)
            log.error("runtime.no_port", runtime=runtime.id, hint=_HINT)
        return 0

    def withdraw(self, conversation: Conversation) -> None:
        """Stop listening for this runtime, unless a use of its port is to wake it. Not listening already: fine."""
        runtime = conversation.runtime
        if runtime is None:
            return
        self._without.discard(runtime.id)
        if runtime.id in self._open:
            if put_to_rest(conversation):
                self._keep(runtime.id)
            else:
                self._close(runtime.id)

    def reopen(self, conversation: Conversation) -> bool:
        """Listen again for one that sleeps, on the port that its clients know; False where that is not free."""
        runtime = conversation.runtime
        if runtime is None or self._listen is None or runtime.id in self._open:
            return True
        if not runtime.public_port or not self._opened(runtime.id, runtime.public_port):
            log.warning("runtime.port_lost", runtime=runtime.id, port=runtime.public_port)
            return False
        self._keep(runtime.id)
        return True

    def close(self) -> None:
        """Stop listening for all of them."""
        for runtime in list(self._open):
            self._close(runtime)

    def _opened(self, runtime: RuntimeId, port: int) -> bool:
        with suppress(OSError):
            if self._listen is not None:
                self._open[runtime] = self._listen(runtime, port)
                return True
        return False

    def _keep(self, runtime: RuntimeId) -> None:
        self._sleeping.setdefault(runtime)
        while len(self._sleeping) > self._most_sleeping:
            self._give_up(next(iter(self._sleeping)))

    def _give_up(self, runtime: RuntimeId) -> None:
        log.warning("runtime.port_given_up", runtime=runtime, port=self._open[runtime].port, hint=_HINT)
        self._close(runtime)

    def _close(self, runtime: RuntimeId) -> None:
        self._sleeping.pop(runtime, None)
        self._open.pop(runtime).close()


async def reopen(ports: PublicPorts, conversations: Conversations) -> int:
    """After a restart: listen for all that sleep. Answers for how many. Raises `StoreUnavailable`."""
    opened = 0
    for runtime in await conversations.sleepers():
        place = await conversations.route(runtime)
        try:
            record = None if place is None else await conversations.get(*place)
        except NestorError as exc:
            log.warning("runtime.port_not_kept", runtime=runtime, problem=exc.message)
            continue
        if record is None or not may_wake(record) or not ports.reopen(record):
            await conversations.drop_sleeper(runtime)
        else:
            opened += 1
    return opened
