"""What a person sees of the run, line by line; the form for pipes and logs. `live_display.py` is that for terminals.

A display shows what it is told and decides nothing. Texts come from runtimes and models: they are data, never markup.
"""

import sys
import time
from collections.abc import Sequence
from typing import Protocol, TextIO

from orchestrator.demo.outcome import Outcome

COLUMNS = ("conversation", "tenant", "runtime", "stages", "tokens in/out", "cost", "commit", "another tenant sees")


class Display(Protocol):
    """Entered for the length of the run."""

    def __enter__(self) -> "Display": ...

    def __exit__(self, *exc: object) -> None: ...

    def note(self, text: str) -> None:
        """Something about the run as a whole."""

    def stage(self, outcome: Outcome, text: str) -> None:
        """The stage that a conversation is in now."""

    def event(self, outcome: Outcome, text: str) -> None:
        """An event of a conversation, as it arrived."""

    def table(self, outcomes: Sequence[Outcome]) -> None:
        """The closing table."""

    def miss(self, text: str) -> None:
        """Something that should have happened and did not."""


def stages_text(outcome: Outcome) -> str:
    """The stages with their seconds, and the sum."""
    done = [stage for stage in outcome.stages if stage.seconds is not None]
    if not done:
        return "-"
    total = sum(stage.seconds or 0 for stage in done)
    return ", ".join(f"{stage.name} {stage.seconds:.1f}" for stage in done) + f" = {total:.1f} s"


def row(outcome: Outcome) -> tuple[str, ...]:
    """A conversation's line of the closing table, in the order of COLUMNS."""
    return (
        f"{outcome.short} {outcome.task.name}",
        outcome.tenant,
        outcome.runtime or "-",
        stages_text(outcome),
        f"{outcome.cost.tokens_in}/{outcome.cost.tokens_out}",
        f"${outcome.cost.dollars:.4f}",
        f"{outcome.commit.sha[:8]} {outcome.commit.subject}" if outcome.commit else "-",
        outcome.stranger_sees or "-",
    )


class PlainDisplay:
    """One line at a time, with the seconds since the start."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._began = time.monotonic()

    def __enter__(self) -> "PlainDisplay":
        return self

    def __exit__(self, *exc: object) -> None:
        self._out.flush()

    def note(self, text: str) -> None:
        self._line(text)

    def stage(self, outcome: Outcome, text: str) -> None:
        self._line(f"[{outcome.label}] {text}")

    def event(self, outcome: Outcome, text: str) -> None:
        self._line(f"[{outcome.label}]   {text}")

    def table(self, outcomes: Sequence[Outcome]) -> None:
        self._line("")
        for outcome in outcomes:
            self._line("; ".join(f"{name}: {cell}" for name, cell in zip(COLUMNS, row(outcome), strict=True)))

    def miss(self, text: str) -> None:
        self._line(f"MISSING {text}")

    def _line(self, text: str) -> None:
        stamp = f"{time.monotonic() - self._began:6.1f}  " if text else ""
        self._out.write(f"{stamp}{text}\n")
        self._out.flush()
