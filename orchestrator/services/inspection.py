"""A look at the runtime of a conversation, past its agent server: what it uses, and what it printed.

For the API. It changes nothing, holds no lease, and keeps nothing.
"""

from collections.abc import Sequence

from orchestrator.domain.conversation import Conversation, Phase
from orchestrator.domain.errors import Conflict, DriverUnavailable, RuntimeNotFound
from orchestrator.drivers.base import Driver, Measurable
from orchestrator.drivers.values import Condition, Handle, Usage
from orchestrator.services.discretion import discreet_lines
from orchestrator.services.effective import Effective
from orchestrator.services.keys import KeyRing
from orchestrator.services.resting import no_runtime
from orchestrator.services.start import runtime_name


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

    async def logs(self, conversation: Conversation, *, lines: int) -> tuple[Sequence[str], bool]:
        """The last lines that it printed, without any value that it was given, and whether the runtime is there. Where
        it is gone, they are what was kept of its end, or of the latest that failed: 20 at most. Raises `Conflict` where
        nothing was; `DriverUnavailable`."""
        try:
            said = await self.printed(conversation, lines=lines)
        except Conflict:
            ends = [failure.why.log_tail for failure in conversation.failures]
            if conversation.phase in (Phase.STOPPING, Phase.STOPPED) and conversation.why.log_tail:
                ends.append(conversation.why.log_tail)
            kept = ends[-1] if ends else ()
            if not kept:
                raise
            return kept[-lines:], False
        return await self.discreet(conversation, said), True

    async def printed(self, conversation: Conversation, *, lines: int) -> Sequence[str]:
        """The last lines as they are: not to be shown. Raises `Conflict` where there is no runtime;
        `DriverUnavailable`."""
        try:
            return await self._driver.logs(await self._handle(conversation), lines=lines)
        except RuntimeNotFound:
            raise _without_runtime(conversation) from None

    async def discreet(self, conversation: Conversation, lines: Sequence[str]) -> Sequence[str]:
        """The same without any value that the runtime was given."""
        return await discreet_lines(lines, conversation, self._effective, self._keys) if lines else ()

    async def runs(self, conversation: Conversation) -> bool:
        """Whether more can come of it. True where the engine cannot be asked."""
        try:
            observed = await self._driver.inspect(await self._handle(conversation))
        except (RuntimeNotFound, Conflict):
            return False
        except DriverUnavailable:
            return True
        return observed.condition is not Condition.EXITED

    async def _handle(self, conversation: Conversation) -> Handle:
        runtime = conversation.runtime
        found = None
        if runtime is not None and runtime.generation:
            found = await self._driver.find(runtime_name(conversation, runtime.generation))
        if found is None:
            raise _without_runtime(conversation)
        return found


def _without_runtime(conversation: Conversation) -> Conflict:
    return no_runtime(conversation, ", and has no runtime now", hint="start it, or wait for it")
