"""What a driver is: code that runs runtimes somewhere. Provisioning and the reconciler call it and know no engine.

Names are chosen before anything is made, so that the engine itself refuses a second runtime of one generation, and a
reply that was lost is found again by name or label. "I could not ask" (`DriverUnavailable`) and "it is not there"
(`RuntimeNotFound`) are different answers: mixing them starts a second runtime.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol, runtime_checkable

from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.values import (
    Capabilities,
    DiskUse,
    DriverEvent,
    Endpoint,
    Fingerprint,
    Handle,
    Observed,
    OwnerLabels,
    Row,
    RuntimeSpec,
    ServingKeys,
    Usage,
)


class Driver(Protocol):
    """Small, idempotent, honest. Every mutating verb takes the fence of the caller's lease and refuses a lower one than
    it has seen for that runtime (`StaleFence`)."""

    name: str
    capabilities: Capabilities

    async def fingerprint(self) -> Fingerprint:
        """Can this host run anything now; if not, why. Never raises."""
        ...

    async def ensure_volume(self, labels: OwnerLabels, *, fence: int) -> bool:
        """Make the conversation's lasting storage (workspace and state); True if it was made now."""
        ...

    async def remove_volume(self, labels: OwnerLabels, *, fence: int) -> None:
        """Remove that storage. Already gone: fine. Only `labels.storage` and `labels.tenant` matter."""
        ...

    async def create(self, spec: RuntimeSpec, *, fence: int) -> Handle:
        """Claim the name and make the runtime, not started. Same name and spec: same handle. Raises `ClaimTaken`."""
        ...

    async def start(
        self, handle: Handle, *, fence: int, init_key: SecretText, serving: ServingKeys | None = None
    ) -> Endpoint:
        """Start it, dormant, handing `init_key` to it alone; a server of `Dialect.CONFIGURED` gets `serving` in its
        place. Running already: its endpoint. Raises `StartRefused`, also for such a server without `serving`."""
        ...

    async def inspect(self, handle: Handle) -> Observed:
        """What is there now. `RuntimeNotFound` only when the engine says so."""
        ...

    async def logs(self, handle: Handle, *, lines: int = 20) -> Sequence[str]:
        """The last lines of what the runtime printed; empty when there are none."""
        ...

    async def stop(self, handle: Handle, *, fence: int, grace: float) -> None:
        """End it: asked first, killed after `grace` seconds, with every process it started. Ended already: fine."""
        ...

    async def destroy(self, handle: Handle, *, fence: int) -> None:
        """Stop it at once and remove it, not its volume. Already gone: fine."""
        ...

    async def find(self, name: str) -> Handle | None:
        """The handle of the runtime of that name: how a lost reply of `create` is found again."""
        ...

    async def list(self, installation: str) -> Sequence[Handle]:
        """Every runtime of this installation, whatever its condition."""
        ...

    def events(self) -> AsyncIterator[DriverEvent]:
        """Hints, for as long as the iterator is read."""
        ...

    async def close(self) -> None:
        """Let go of connections and watchers. Runtimes go on."""
        ...


@runtime_checkable
class Pausable(Protocol):
    """A driver that can freeze a runtime in place."""

    async def pause(self, handle: Handle, *, fence: int) -> None:
        """Freeze it. Frozen already: fine."""
        ...

    async def unpause(self, handle: Handle, *, fence: int) -> Endpoint:
        """Let it go on. Running already: fine."""
        ...


@runtime_checkable
class Conjoint(Protocol):
    """A driver that makes a runtime and its volume in one act."""

    async def create_with_volume(self, spec: RuntimeSpec, *, fence: int) -> Handle:
        """As `ensure_volume` and `create`, whose handle it answers. That the volume is another's (`ClaimTaken`) may be
        told by `start` instead, which leaves nothing running then. What was made when it raises is removed by
        `destroy` and `remove_volume`."""
        ...


@runtime_checkable
class Paced(Protocol):
    """A driver whose machine starts few runtimes at once, as more are slower together. A start may wait in it."""

    def came_up(self, handle: Handle) -> None:
        """The runtime that was started answers: another may start. May be repeated; where nobody says it, the next
        ones wait some seconds."""
        ...


@runtime_checkable
class Spareable(Protocol):
    """A driver whose runtimes can be started before anybody wants them: dormant, with `spare_labels`, on a storage of
    their own. That storage belongs to nobody, until it is named (`OwnerLabels.volume`) by labels that have a tenant;
    from then on it is that tenant's. Nothing is asked of the engine in order to bind one."""

    async def spare_kind(self, image: str | None) -> str:
        """What a runtime of this image would be now: another text when it would be another program. No secret."""
        ...


@runtime_checkable
class Imaged(Protocol):
    """A driver whose runtimes are made of images."""

    async def image_id(self, name: str) -> str:
        """The engine's own id of what it has under this name, or under this id: a digest of all that is in it. Raises
        `ImageUnavailable`, `DriverUnavailable`."""
        ...

    async def pull(self, name: str) -> None:
        """Fetch it from its registry. Takes minutes. Raises `ImageUnavailable`, `DriverUnavailable`."""
        ...


@runtime_checkable
class Measurable(Protocol):
    """A driver that can tell what a runtime uses, and end one whose storage is too large."""

    async def usage(self, handle: Handle) -> Usage:
        """Raises `RuntimeNotFound` when it is not there."""
        ...

    async def disk(self, handle: Handle) -> DiskUse | None:
        """None where its size cannot be told from here. Raises `RuntimeNotFound` when it does not run."""
        ...

    async def end_full(self, handle: Handle) -> None:
        """Kill it; from then on its cause is `ExitCause.DISK`. No fence: it is true whoever holds the lease."""
        ...


@runtime_checkable
class Gated(Protocol):
    """A driver whose runtimes may reach only hosts that were named."""

    async def permit(self, endpoint: Endpoint, hosts: Sequence[str]) -> None:
        """From now on the runtime there may reach these, and no others: `host:port` each, where the host may begin with
        `*.` for everything below it. Nothing is asked of the engine. Where egress is no allow-list: nothing."""
        ...


@runtime_checkable
class Walled(Protocol):
    """A driver that keeps runtimes apart by what it sets on this machine, and can say whether that took effect."""

    async def wall(self, listener: tuple[str, int] | None) -> None:
        """Set the rules, `listener` being the one address and port of this machine that runtimes may reach. Called
        once, before the first runtime is made. Raises `DriverUnavailable`, `Misconfigured`."""
        ...

    async def report(self) -> Sequence[Row]:
        """What holds, tried out now. Takes seconds. Raises `DriverUnavailable`."""
        ...

    async def mend(self) -> Sequence[str]:
        """Look whether the rules still hold, set what is missing, remove what is left over; what was done, in words."""
        ...


@runtime_checkable
class Faced(Protocol):
    """A driver whose runtimes do not all reach this orchestrator under the same address."""

    def facing_host(self, endpoint: Endpoint) -> str | None:
        """The address under which the runtime there reaches this orchestrator's runtime-facing listener; None where it
        is the listener's own. Asks nobody."""
        ...


@runtime_checkable
class Prunable(Protocol):
    """A driver whose volumes lie outside of the data folder, and so outlive one that is thrown away."""

    async def prune(self, installation: str, *, fence: int) -> None:
        """Remove every volume of this installation that no runtime uses."""
        ...
