"""A look at the runtime of a conversation, past its agent server: what it uses, and what it printed.

For the API. It changes nothing, holds no lease, and keeps nothing.
"""

from collections.abc import Sequence

from orchestrator.domain.conversation import Conversation
from orchestrator.domain.errors import Conflict, RuntimeNotFound
from orchestrator.drivers.base import Driver, Handle, Measurable, Usage
from orchestrator.services.discretion import discreet_lines
from orchestrator.services.effective import Effective
from orchestrator.services.keys import KeyRing
from orchestrator.services.provisioning import runtime_name


class Inspection:
    """Of one driver's runtimes."""

    def __init__(self, driver: Driver, effective: Effective, keys: KeyRing) -> None:
        self._driver = driver
        self._effective = effective
        self._keys = keys

    async def usage(self, conversation: Conversation) -> Usage:
        """What it uses at this moment. Raises `Conflict` where there is no runtime, or nothing that could tell;
        `DriverUnavailable`."""
        if not isinstance(self._driver, Measurable):
            raise Conflict(f"the {self._driver.name} driver does not measure runtimes", hint="the docker driver does")
        try:
            return await self._driver.usage(await self._handle(conversation))
        except RuntimeNotFound:
            raise _without_runtime(conversation) from None

    async def logs(self, conversation: Conversation, *, lines: int) -> Sequence[str]:
        """The last lines that it printed, without any value that it was given; of a failed one they are in its record.
        Raises `Conflict` where there is no runtime; `DriverUnavailable`."""
        try:
            said = await self._driver.logs(await self._handle(conversation), lines=lines)
        except RuntimeNotFound:
            raise _without_runtime(conversation) from None
        return await discreet_lines(said, conversation, self._effective, self._keys)

    async def _handle(self, conversation: Conversation) -> Handle:
        runtime = conversation.runtime
        found = None
        if runtime is not None and runtime.generation:
            found = await self._driver.find(runtime_name(conversation, runtime.generation))
        if found is None:
            raise _without_runtime(conversation)
        return found


def _without_runtime(conversation: Conversation) -> Conflict:
    return Conflict(
        f"the {conversation.kind} is {conversation.phase}, and has no runtime now", hint="start it, or wait for it"
    )
