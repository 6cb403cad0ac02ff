"""Which URL a repository is cloned from, and who gets whose token."""

import pytest
from pydantic import SecretStr

from runtime.git.remotes import AmbiguousProvider, InvalidRepository, provider_for, remote_for, username_for
from runtime.secrets.providers import GitProvider


def provider(name: str, host: str | None = None, **more: object) -> GitProvider:
    return GitProvider(name, SecretStr(f"token-of-{name}"), host, None, **more)  # type: ignore[arg-type]


GITHUB = provider("github")
GITLAB = provider("gitlab", "git.example.org:8443")
LOCAL = provider("bitbucket", "http://127.0.0.1:8123")
ALL = {item.name: item for item in (GITHUB, GITLAB, LOCAL)}


def url(repository: str, chosen: str | None = None, providers: dict[str, GitProvider] | None = None) -> str:
    return remote_for(repository, chosen=chosen, providers=ALL if providers is None else providers, http_hosts=()).url


def test_owner_and_name_go_to_the_chosen_provider() -> None:
    assert url("acme/app", "github") == "https://github.com/acme/app.git"
    assert url("acme/sub/app.git", "gitlab") == "https://git.example.org:8443/acme/sub/app.git"
    assert url("acme/app", "bitbucket") == "http://127.0.0.1:8123/acme/app.git"
    assert url("acme/app", providers={"gitlab": GITLAB}) == "https://git.example.org:8443/acme/app.git"
    assert url("acme/app", providers={}) == "https://github.com/acme/app.git"
    with pytest.raises(AmbiguousProvider, match="bitbucket, github, gitlab"):
        url("acme/app")


@pytest.mark.parametrize(
    "repository",
    [
        "app",
        "../app",
        "acme/../app",
        "-acme/app",
        "acme/--upload-pack=x",
        "ssh://git@github.com/acme/app",
        "file:///etc/x",
        "ext::sh -c id/x",
        "https://user:token@github.com/acme/app",
        "https://github.com/acme/app?x=1",
        "https://github.com/",
        "https://github.com/acme/.git",
        "http://github.com/acme/app",
        "https://github.com/acme/a b",
        "https:///acme/app",
        "https://[::1/acme/app",
        "https://github.com:x/acme/app",
    ],
)
def test_what_is_no_repository_is_refused(repository: str) -> None:
    with pytest.raises(InvalidRepository) as refusal:
        url(repository, "github")
    assert "token@" not in str(refusal.value)


def chosen(protocol: str, host: str, path: str = "acme/app.git", *, http_hosts: tuple[str, ...] = ()) -> str | None:
    found = provider_for({"protocol": protocol, "host": host, "path": path}, ALL, http_hosts)
    return found.name if found else None


def test_a_token_goes_to_its_scheme_host_and_port_only() -> None:
    assert chosen("https", "github.com") == "github"
    assert chosen("https", "GitHub.com") == "github"
    assert chosen("https", "git.example.org:8443") == "gitlab"
    assert chosen("http", "127.0.0.1:8123") == "bitbucket"
    assert chosen("https", "git.example.org") is None
    assert chosen("https", "github.com.evil.org") is None
    assert chosen("https", "github.com:444") is None
    assert chosen("http", "github.com") is None
    assert chosen("http", "github.com", http_hosts=("github.com",)) is None
    assert chosen("https", "127.0.0.1:8123") is None
    assert chosen("ssh", "github.com") is None


def test_a_provider_limited_to_repositories_gives_its_token_for_those_only() -> None:
    limited = {"github": provider("github", repositories=("acme/app", "Acme/Other.git"))}
    for path, allowed in (
        ("acme/app.git", True),
        ("acme/app.git/info/refs", True),
        ("/acme/app/git-receive-pack", True),
        ("acme/other", True),
        ("acme/app2", False),
        ("", False),
    ):
        got = provider_for({"protocol": "https", "host": "github.com", "path": path}, limited, ())
        assert (got is not None) is allowed, path


def test_user_names_by_provider() -> None:
    assert [username_for(item) for item in (GITHUB, GITLAB, LOCAL)] == ["x-access-token", "oauth2", "x-token-auth"]
    assert username_for(GitProvider("azure_devops", None, None, "me")) == "me"
    assert username_for(GitProvider("azure_devops", None, None, None)) == "git"
