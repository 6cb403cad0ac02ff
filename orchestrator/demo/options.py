"""What a run of the demo is told: by the command line, or by a test. Holds no defaults of the machine it runs on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.domain.secrets import SecretText


class DemoFailed(Exception):
    """Something the demo asked for did not happen; the message says what, and what was answered instead."""


@dataclass(frozen=True)
class ModelChoice:
    """A real model, under the name that litellm knows it by. Without one the scripted model plays."""

    model: str
    api_key: SecretText
    base_url: str | None = None
    #: What a token costs, for a model that no price list knows: dollars in, dollars out.
    prices: tuple[float, float] | None = None

    def settings(self) -> dict[str, Any]:
        """The `llm` part of a user's settings, the key in the clear: for the request that stores it."""
        found: dict[str, Any] = {"model": self.model, "api_key": self.api_key.open()}
        if self.base_url:
            found["base_url"] = self.base_url
        if self.prices:
            found["input_cost_per_token"], found["output_cost_per_token"] = self.prices
        return found


@dataclass(frozen=True)
class DemoOptions:
    """One run.

    With a `url` it drives an orchestrator that already runs, whose `operator_key` it then needs; otherwise it starts
    one in `data_dir`, and `operator_key` means nothing.
    A `data_dir` of None means a folder of the demo's own, removed at the end unless `keep`; with a `url` the
    conversations too are left there.
    `servers_host` is the address of the demo's own model and git server, as the runtimes reach it; None finds it out.
    `engine` and `image` are for the docker driver.
    """

    url: str | None = None
    operator_key: SecretText | None = None
    model: ModelChoice | None = None
    data_dir: Path | None = None
    driver: str = "process"
    servers_host: str | None = None
    engine: str = "unix:///var/run/docker.sock"
    image: str = "nestor-runtime:latest"
    keep: bool = False
    plain: bool = False
