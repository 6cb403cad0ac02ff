"""The run on a terminal: events scroll, and below them each conversation keeps one line with the stage it is in.

Chosen by `run.py` when standard output is a terminal. Everything shown is `Text`, so nothing in an event is markup.
"""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from orchestrator.demo.display import row
from orchestrator.demo.outcome import Outcome

_COLOURS = ("cyan", "magenta", "yellow", "green", "blue")


class LiveDisplay:
    """Draws with rich; the last frame of the progress lines stays when the run ends."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._live = Live(console=self._console, refresh_per_second=8, transient=True)
        self._stages: dict[str, tuple[Outcome, str]] = {}
        self._colours: dict[str, str] = {}
        self._spinner = Spinner("dots")

    def __enter__(self) -> "LiveDisplay":
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        self._console.print(Text(text, style="bold"))

    def stage(self, outcome: Outcome, text: str) -> None:
        self._stages[outcome.conversation] = (outcome, text)
        self._draw()

    def event(self, outcome: Outcome, text: str) -> None:
        self._console.print(Text(f"{outcome.label:<16} ", style=self._colour(outcome)) + Text(text, style="default"))

    def table(self, outcomes: Sequence[Outcome]) -> None:
        self._stages.clear()
        self._draw()
        table = Table(title="Every conversation ran in a runtime of its own", box=box.ROUNDED, show_lines=True)
        table.add_column("conversation", min_width=13)
        table.add_column("stages, seconds", min_width=14)
        table.add_column("model")
        table.add_column("pushed")
        table.add_column("another tenant sees")
        for outcome in outcomes:
            table.add_row(*(Text(cell) for cell in _stacked(outcome)))
        self._console.print(table)

    def miss(self, text: str) -> None:
        self._console.print(Text(f"MISSING {text}", style="bold red"))

    def _draw(self) -> None:
        grid = Table.grid(padding=(0, 1))
        for outcome, text in self._stages.values():
            grid.add_row(self._spinner, Text(outcome.label, style=self._colour(outcome)), Text(text))
        self._live.update(grid, refresh=True)

    def _colour(self, outcome: Outcome) -> str:
        return self._colours.setdefault(outcome.conversation, _COLOURS[len(self._colours) % len(_COLOURS)])


def _stacked(outcome: Outcome) -> tuple[str, ...]:
    """A conversation's line with what belongs together one below the other, so that it fits 80 columns."""
    conversation, tenant, runtime, stages, tokens, cost, commit, stranger = row(outcome)
    tokens_in, _, tokens_out = tokens.partition("/")
    return (
        conversation.replace(" ", "\n", 1) + f" of {tenant}\nin {runtime}",
        stages,
        f"{tokens_in} in\n{tokens_out} out\n{cost}",
        commit.replace(" ", "\n", 1),
        stranger,
    )
