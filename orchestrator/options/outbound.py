"""What Nestor itself sends to others: webhooks, and questions about git tokens."""

from pydantic import Field, field_validator

from orchestrator.options.base import Settings, hosts, listed


class OutboundSettings(Settings):
    """What Nestor itself sends to others: webhooks, and questions about git tokens."""

    allow_http_hosts: str = ""
    """Comma list of hosts to which a git token may go over plain http, beside loopback."""
    allow_hook_hosts: str = ""
    """Comma list of hosts (names or addresses) to which webhooks may go although they are not on the public net, and
    by plain http. Empty, because whoever chooses an address could otherwise look into the operator's own network."""
    hook_seconds: float = Field(default=10.0, gt=0, le=60)
    """How long a webhook's receiver may take to answer."""
    hook_backoff_seconds: float = Field(default=5.0, gt=0, le=3600)
    """Rest of a webhook after its first failure; twice as long after each further one, with jitter: up to 15 minutes
    for the endpoint, up to 4 hours for one conversation of it."""
    hook_dead_seconds: float = Field(default=259_200.0, gt=0, le=31_536_000)
    """For how long a webhook may fail before it is disabled: three days, a long weekend."""
    verify_git_tokens: bool = True
    """Ask the provider's API whether a token is valid when it is stored."""

    @field_validator("allow_http_hosts", "allow_hook_hosts")
    @classmethod
    def _trusted(cls, text: str) -> str:
        return hosts(text)

    @property
    def http_hosts(self) -> frozenset[str]:
        return listed(self.allow_http_hosts)

    @property
    def hook_hosts(self) -> frozenset[str]:
        """As `security/outbound.py` spells hosts."""
        return frozenset(host.lower().strip("[]").removesuffix(".") for host in listed(self.allow_hook_hosts))
