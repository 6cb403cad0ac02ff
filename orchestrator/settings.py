"""What the operator chooses, from the environment and the flags of `nestor up`. Nothing else reads the environment.

Every variable starts with `NESTOR_`; one that is not known is refused by name, since a misspelt limit is no limit.
The fields are in `options`, a group a file.
"""

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from orchestrator.domain.errors import Misconfigured
from orchestrator.options.callers import CallerSettings
from orchestrator.options.limits import LimitSettings
from orchestrator.options.listening import ListeningSettings
from orchestrator.options.lives import LifeSettings
from orchestrator.options.networks import NetworkSettings
from orchestrator.options.outbound import OutboundSettings
from orchestrator.options.spares import SpareSettings
from orchestrator.options.storage import StorageSettings

#: NESTOR_ variables that other parts read: the runtime inside its own process, and the project's scripts.
FOREIGN = frozenset({"NESTOR_RUNTIME", "NESTOR_CLAIM", "NESTOR_RUNTIME_ALLOW_OPEN", "NESTOR_PYTHON", "NESTOR_K8S_BIN"})


class OrchestratorSettings(
    ListeningSettings,
    StorageSettings,
    CallerSettings,
    NetworkSettings,
    SpareSettings,
    OutboundSettings,
    LifeSettings,
    LimitSettings,
):
    """All of them, as `load` finds them."""

    log_format: Literal["console", "json"] = "console"
    """How log lines are written to standard error."""


class DemoSettings(BaseSettings):
    """The model that `nestor demo` uses instead of the scripted one, under the names that other tools use as well."""

    model_config = SettingsConfigDict(env_prefix="LLM_", extra="ignore")

    model: str | None = None
    api_key: SecretStr | None = None
    base_url: str | None = None


def load(overrides: Mapping[str, Any]) -> OrchestratorSettings:
    """The settings from flags (`overrides`, None meaning not given) over the environment over defaults.

    Raises `Misconfigured` naming the variable.
    """
    known = {f"NESTOR_{name.upper()}" for name in OrchestratorSettings.model_fields} | FOREIGN
    for name in os.environ:
        if name.startswith("NESTOR_") and name not in known:
            raise Misconfigured(f"unknown variable {name}", hint=_nearest(name, sorted(known - FOREIGN)))
    try:
        return OrchestratorSettings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        name = f"NESTOR_{str(first['loc'][0]).upper()}" if first["loc"] else "the configuration"
        raise Misconfigured(f"{name}: {first['msg']}") from None


def _nearest(name: str, known: Sequence[str]) -> str:
    """What may have been meant."""
    near = get_close_matches(name, known, n=3, cutoff=0.7)
    told = "docs/configuration.md has all of them; one that is left from another version is to be unset"
    return f"did you mean {' or '.join(near)}? {told}" if near else told


_INHERITED = ("PATH", "HOME", "LANG", "TZ", "SSL_CERT_FILE", "HTTPS_PROXY", "NO_PROXY", "NESTOR_REDIS_URL")


def child_environment() -> dict[str, str]:
    """What a child process of ours needs of this environment to find its programs, and nothing else."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}
