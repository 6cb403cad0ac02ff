"""The online check of a git provider's token: only the provider itself refuses one, and each token by itself."""

from collections.abc import Mapping

import pytest

from orchestrator.domain.git import GitProvider
from orchestrator.domain.secrets import SecretText
from orchestrator.services.git_tokens import TokenCheck

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("name", "host", "status", "refused"),
    [
        ("github", None, 401, True),
        ("gitlab", None, 403, True),
        ("bitbucket", "bitbucket.org", 401, True),
        ("github", None, 200, False),
        ("github", None, 500, False),
        ("github", None, None, False),
        ("github", "http://127.0.0.1:9", 401, False),
        ("azure_devops", None, 401, False),
    ],
)
async def test_only_the_providers_own_host_refuses_a_token(
    name: str, host: str | None, status: int | None, refused: bool
) -> None:
    asked: list[tuple[str, str]] = []

    async def probe(url: str, headers: Mapping[str, str]) -> int | None:
        asked.append((url, headers["Authorization"]))
        return status

    check = TokenCheck(probe)
    assert await check.refused(GitProvider(name, SecretText("t-1"), host, None)) is refused
    own = host in (None, "bitbucket.org") and name != "azure_devops"
    assert [(url.startswith("https://"), header) for url, header in asked] == [(True, "Bearer t-1")] * own


async def test_nobody_is_asked_where_the_operator_does_not_want_it() -> None:
    assert not await TokenCheck(None).refused(GitProvider("github", SecretText("t-1"), None, None))
