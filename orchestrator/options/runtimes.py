"""Where runtimes run and how they start, whatever the driver."""

import shlex
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from orchestrator.domain.step_seconds import step_seconds
from orchestrator.options.base import Settings


class RuntimeSettings(Settings):
    """Where runtimes run and how they start, whatever the driver."""

    driver: Literal["process", "docker", "fake"] = "process"
    """Where runtimes run. `fake` runs no agent: it is for trying out clients."""
    fake_engine: Path | None = None
    """Fake driver: the socket of a fake engine that several orchestrators share. Without it each has its own."""
    runtime_command: str | None = None
    """Another agent server for the process driver's runtimes; `{host}` and `{port}` are replaced."""
    stock_start: Literal["dormant", "configured"] = "dormant"
    """How an agent server gets its keys that is not Nestor's (`runtime_command`, or an image without Nestor's label):
    when it is bound, or as it starts. Dormant, because then its environment holds nothing of worth; a release that
    does not know `OH_DEFERRED_INIT` has to be configured."""
    namespaces: bool | None = None
    """Process driver: insist on bubblewrap namespaces (true), do without (false), or use them where they work."""
    zygote: Literal["auto", "off"] = "auto"
    """Process driver: fork runtimes from a process that has imported everything once (auto), or execute each (off).
    It holds some 250 MB as long as Nestor runs, and each runtime then some 40 MB of its own instead of 200."""
    sandbox_key: bool = True
    """Whether commands that callers run in a V1 sandbox find its session key in their environment, as programs there
    expect. It opens that sandbox and the secrets that are read through it; whatever runs there meanwhile under the
    same user, such as an agent, can find it in the environment of such a command."""
    version_megabytes: int = Field(default=256, ge=0, le=100_000)
    """What a runtime of Nestor's own may take in its state for versions of its conversation's workspace, in MB, so that
    a fork at a past event has the workspace of then; 0: none are kept. At most an eighth of
    `runtime_disk_megabytes`, since it counts there. A larger workspace has none. A runtime learns it when it is
    made."""
    start_timeout: float = Field(default=180.0, gt=0, le=86_400)
    """Seconds from the first step of a start to ready, retries included."""
    step_seconds: str = ""
    """Comma list of step=seconds for single steps, as in `create=120,converse=300`. Each has a limit of its own, many
    times what it takes on a busy machine (docs/states.md); a slow engine or huge repositories may need more."""
    ephemeral: bool = False
    """Remove every runtime when the orchestrator ends. For demonstrations and tests."""

    @field_validator("runtime_command")
    @classmethod
    def _words(cls, command: str | None) -> str | None:
        try:
            shlex.split(command or "")
        except ValueError as exc:
            raise ValueError(f"it cannot be told apart into words ({exc})") from None
        return command

    @field_validator("step_seconds")
    @classmethod
    def _steps(cls, text: str) -> str:
        step_seconds(text)
        return text
