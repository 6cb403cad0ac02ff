"""How much at once: runtimes, starts, calls, and what becomes of a start over a limit."""

from pydantic import Field

from orchestrator.domain.admission import Allowance, OperatorLimits, Policy
from orchestrator.options.base import Settings


class LimitSettings(Settings):
    """How much at once: runtimes, starts, calls, and what becomes of a start over a limit."""

    max_runtimes: int = Field(default=0, ge=0)
    """Runtimes that run at once on this host, of all tenants; 0 for any number. Paused ones are not counted."""
    starts_per_minute: int = Field(default=0, ge=0)
    """Starts within a minute on this host, of all tenants; 0 for any number."""
    tenant_max_runtimes: int = Field(default=0, ge=0)
    """The same for one tenant. It may lower this and the next ones for itself in its settings, and not raise them."""
    tenant_max_runtimes_per_user: int = Field(default=0, ge=0)
    """For each of a tenant's users."""
    tenant_max_runtimes_per_key: int = Field(default=0, ge=0)
    """For each API key: those that were started with it."""
    tenant_starts_per_minute: int = Field(default=0, ge=0)
    """Starts of a tenant within a minute."""
    tenant_starts_per_minute_per_user: int = Field(default=0, ge=0)
    """For each of a tenant's users."""
    tenant_starts_per_minute_per_key: int = Field(default=0, ge=0)
    """For each API key."""
    tenant_calls_per_second: int = Field(default=400, ge=0, le=100_000)
    """Calls of the API, of all replicas together, that one tenant may send with all of its keys; ten seconds' worth at
    once after a rest. Reads that clients poll while they wait, and what goes to a runtime, are not counted. 0 for any
    number. The default leaves room for others where one replica serves some hundred calls a second and a core."""
    calls_per_second_per_key: int = Field(default=200, ge=0, le=100_000)
    """The same for each API key."""
    when_full: Policy = Policy.REJECT
    """What becomes of a start over a limit where the tenant's settings say nothing: `reject`, because an answer at once
    is what clients without patience expect; `queue`; `pause_oldest_idle`."""
    queue_length: int = Field(default=100, ge=1, le=10_000)
    """How many starts of one tenant may wait."""
    queue_seconds: float = Field(default=600.0, gt=0, le=86_400)
    """How long a start may wait, until it fails with the reason `limit`."""

    @property
    def limits(self) -> OperatorLimits:
        return OperatorLimits(
            allowance=Allowance(
                max_runtimes=self.tenant_max_runtimes,
                max_runtimes_per_user=self.tenant_max_runtimes_per_user,
                max_runtimes_per_key=self.tenant_max_runtimes_per_key,
                starts_per_minute=self.tenant_starts_per_minute,
                starts_per_minute_per_user=self.tenant_starts_per_minute_per_user,
                starts_per_minute_per_key=self.tenant_starts_per_minute_per_key,
            ),
            host_runtimes=self.max_runtimes,
            host_starts_per_minute=self.starts_per_minute,
            when_full=self.when_full,
            queue_length=self.queue_length,
            queue_seconds=self.queue_seconds,
        )
