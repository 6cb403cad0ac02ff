"""Which hosts a conversation needs: those of its model and of its git providers, and what the operator adds.

Provisioning tells the driver before anything is pushed, and the upkeep of a live runtime when something changed. Pure.
A host is `name:port`, where the name may begin with `*.` for everything below it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from orchestrator.domain.git import PUBLIC_HOSTS
from orchestrator.nested.wire import Bundle

#: Where the public providers of models listen, by the part of a model's name before the slash.
MODEL_HOSTS: Mapping[str, str] = {
    "anthropic": "api.anthropic.com",
    "cohere": "api.cohere.com",
    "deepseek": "api.deepseek.com",
    "fireworks_ai": "api.fireworks.ai",
    "gemini": "generativelanguage.googleapis.com",
    "groq": "api.groq.com",
    "mistral": "api.mistral.ai",
    "openai": "api.openai.com",
    "openrouter": "openrouter.ai",
    "perplexity": "api.perplexity.ai",
    "together_ai": "api.together.xyz",
    "xai": "api.x.ai",
}
#: A name without a provider: litellm knows these by themselves.
_BARE = (("claude", "anthropic"), ("gpt", "openai"), ("o1", "openai"), ("o3", "openai"), ("o4", "openai"))
#: What else a clone or push of a public host needs.
_BESIDE: Mapping[str, Sequence[str]] = {
    "github": ("api.github.com", "codeload.github.com", "*.githubusercontent.com", "github-cloud.s3.amazonaws.com"),
    "bitbucket": ("api.bitbucket.org",),
}
_AGENTS = ("agent", "agent_settings")  #: where a start body names models
_PORTS: Mapping[str, int] = {"http": 80, "https": 443}


def hosts_of(
    bundle: Bundle, repository: str | None, operator: Sequence[str], *, start_body: Mapping[str, Any] | None = None
) -> Sequence[str]:
    """All of them, sorted, each once. `start_body` is an agent server's own, which brings an agent with its model."""
    brought = [] if start_body is None else [start_body.get(part) for part in _AGENTS]
    models = {host for settings in (bundle.settings, *brought) for host in _models(settings)}
    return sorted({*models, *_gits(bundle, repository), *map(with_port, operator)})


def with_port(host: str) -> str:
    """`host` in lower case, 443 where it names no port."""
    name, colon, port = host.lower().rpartition(":")
    return f"{name}:{port}" if colon and port.isdigit() else f"{host.lower()}:443"


def _models(value: Any) -> Iterator[str]:
    """Of every model in the settings: the agent's own, its condenser's, its profiles'."""
    if not isinstance(value, Mapping):
        return
    model, base = value.get("model"), value.get("base_url")
    if isinstance(base, str) and base:
        yield from _of_url(base)
    elif isinstance(model, str) and model:
        yield from _of_model(model)
    for inner in value.values():
        yield from _models(inner)


def _of_model(model: str) -> Iterator[str]:
    provider, slash, _ = model.partition("/")
    if not slash:
        provider = next((known for start, known in _BARE if model.startswith(start)), "")
    if provider in MODEL_HOSTS:
        yield f"{MODEL_HOSTS[provider]}:443"


def _gits(bundle: Bundle, repository: str | None) -> Iterator[str]:
    if repository is not None and "://" in repository:
        yield from _of_url(repository)
    for provider in bundle.providers:
        if provider.host is None:
            if provider.name in PUBLIC_HOSTS:
                yield f"{PUBLIC_HOSTS[provider.name]}:443"
            yield from (f"{host}:443" for host in _BESIDE.get(provider.name, ()))
        elif "://" in provider.host:
            yield from _of_url(provider.host)
        else:
            yield with_port(provider.host)


def _of_url(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return
    if parts.hostname and port:
        yield f"{parts.hostname}:{port}"
