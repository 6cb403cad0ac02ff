"""How long runtimes and conversations live, and what becomes of one that dies."""

from pydantic import Field

from orchestrator.domain.restarts import RestartPolicy, Restarts
from orchestrator.domain.retention import Span, Spans
from orchestrator.options.base import Settings


class LifeSettings(Settings):
    """How long runtimes and conversations live, and what becomes of one that dies."""

    lease_seconds: float = Field(default=15.0, gt=0.2, le=600)
    """How long a replica owns a conversation without renewing. Three renewals fit, so one lost call is harmless."""
    idle_pause_seconds: float = Field(default=1800.0, ge=0, le=31_536_000)
    """Seconds without use after which a runtime is paused, where the tenant's settings say nothing; 0 for never. An
    agent at work and an open socket are use."""
    idle_pause_max_seconds: float = Field(default=0.0, ge=0, le=31_536_000)
    """The longest time that a tenant, a user or a request may choose instead; 0 for any."""
    max_life_seconds: float = Field(default=0.0, ge=0, le=31_536_000)
    """A runtime is stopped (reason `expired`) after so long, also while its agent runs; 0 for never. For one that picks
    up a new image or new limits only when it is made anew."""
    max_life_max_seconds: float = Field(default=0.0, ge=0, le=31_536_000)
    """The longest that a tenant, a user or a request may choose instead; 0 for any. So for the next ones."""
    stop_paused_seconds: float = Field(default=86_400.0, ge=0, le=31_536_000)
    """A paused runtime is removed after so long; its next use makes it anew. A day, because a frozen one keeps its
    memory; 0 for never."""
    stop_paused_max_seconds: float = Field(default=0.0, ge=0, le=31_536_000)
    """Its cap."""
    archive_seconds: float = Field(default=0.0, ge=0, le=315_360_000)
    """Stopped or failed for so long, a conversation's workspace is removed: it can be read and not started. 0 for
    never, because nobody should lose work by a default."""
    archive_max_seconds: float = Field(default=0.0, ge=0, le=315_360_000)
    """Its cap."""
    delete_seconds: float = Field(default=0.0, ge=0, le=315_360_000)
    """Stopped or failed for so long, a conversation is deleted; 0 for never."""
    delete_max_seconds: float = Field(default=0.0, ge=0, le=315_360_000)
    """Its cap."""
    undelete_seconds: float = Field(default=600.0, ge=0, le=2_592_000)
    """How long a deletion can be undone; 0 for not at all."""
    drift_seconds: float = Field(default=60.0, ge=0, le=86_400)
    """How often a runtime that runs is asked whether it still holds the configuration that was pushed; 0 for never."""
    restart: RestartPolicy = RestartPolicy.NEVER
    """Whether a runtime that died (out of memory, ended, gone) starts again by itself, where a tenant, user or request
    does not choose: `never`, because a start costs and may repeat what killed it; `on_failure`."""
    restart_max: int = Field(default=3, ge=0, le=10)
    """At most so many restarts within the window, then it fails with the reason; a tenant may choose fewer."""
    restart_window_seconds: float = Field(default=600.0, gt=0, le=86_400)
    """The window; a tenant may choose a longer one."""
    restart_backoff_seconds: float = Field(default=1.0, gt=0, le=60)
    """Before the first restart; each further one within the window waits twice as long, a minute at most."""

    @property
    def spans(self) -> Spans:
        return Spans(
            idle_pause_seconds=Span(self.idle_pause_seconds, self.idle_pause_max_seconds),
            max_life_seconds=Span(self.max_life_seconds, self.max_life_max_seconds),
            stop_paused_seconds=Span(self.stop_paused_seconds, self.stop_paused_max_seconds),
            archive_seconds=Span(self.archive_seconds, self.archive_max_seconds),
            delete_seconds=Span(self.delete_seconds, self.delete_max_seconds),
        )

    @property
    def restarts(self) -> Restarts:
        return Restarts(self.restart, self.restart_max, self.restart_window_seconds, self.restart_backoff_seconds)
