"""One listener a runtime, for clients that need a bare origin. The port is in the record, so it is found again.

`expose` is called from the saga, from every round of tending and from the reconciler; it opens what is not open.
"""

from collections.abc import Callable

import structlog

from orchestrator.domain.conversation import Conversation
from orchestrator.domain.ids import RuntimeId
from orchestrator.proxy.ports import PortListener

log = structlog.get_logger(__name__)
Listen = Callable[[RuntimeId, int], PortListener]  #: on that port, 0 for a free one; raises OSError when it is taken


class PublicPorts:
    """The listeners of this replica. Without `listen_with` there are none, and a record keeps the port it has."""

    def __init__(self) -> None:
        self._listen: Listen | None = None
        self._open: dict[RuntimeId, PortListener] = {}

    def listen_with(self, listen: Listen) -> None:
        """From now on ports are opened by `listen`."""
        self._listen = listen

    def expose(self, conversation: Conversation) -> int:
        """The port of this runtime, opened if it is not; the one of the record where that is still free."""
        runtime = conversation.runtime
        if runtime is None or self._listen is None:
            return runtime.public_port if runtime is not None else 0
        if runtime.id not in self._open:
            try:
                self._open[runtime.id] = self._listen(runtime.id, runtime.public_port)
            except OSError:
                self._open[runtime.id] = self._listen(runtime.id, 0)
                log.warning("runtime.port_changed", runtime=runtime.id, port=self._open[runtime.id].port)
        return self._open[runtime.id].port

    def withdraw(self, conversation: Conversation) -> None:
        """Stop listening for this runtime. Not listening already: fine."""
        runtime = conversation.runtime
        if runtime is not None and runtime.id in self._open:
            self._open.pop(runtime.id).close()

    def close(self) -> None:
        """Stop listening for all of them."""
        for listener in self._open.values():
            listener.close()
        self._open.clear()
