"""The online check of a provider's token when it is stored. Only a 401 or 403 of the provider's API refuses it.

A host that cannot be reached counts as not checked: a sealed network must not stop anybody from storing a token. Hosts
of the caller's own choice are never asked: the orchestrator would send requests wherever a tenant wants. Tests and the
demo switch the check off (`NESTOR_VERIFY_GIT_TOKENS=0`).
"""

from collections.abc import Awaitable, Callable, Mapping

from orchestrator.domain.git import PUBLIC_HOSTS, GitProvider

#: what a provider's public host is asked
_APIS: Mapping[str, str] = {
    "github": "https://api.github.com/user",
    "gitlab": "https://gitlab.com/api/v4/user",
    "bitbucket": "https://api.bitbucket.org/2.0/user",
}

Probe = Callable[[str, Mapping[str, str]], Awaitable[int | None]]  #: GET: the status, None when nobody answered


class TokenCheck:
    """Asks the provider. `probe` None: never asks."""

    def __init__(self, probe: Probe | None) -> None:
        self._probe = probe

    async def refused(self, provider: GitProvider) -> bool:
        """Whether the provider itself says that this token is not valid."""
        own_host = provider.host is not None and provider.host != PUBLIC_HOSTS.get(provider.name)
        if self._probe is None or own_host or provider.name not in _APIS:
            return False
        status = await self._probe(_APIS[provider.name], {"Authorization": f"Bearer {provider.token.open()}"})
        return status in (401, 403)
