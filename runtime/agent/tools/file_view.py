"""How the file editor shows files and directories to the model: numbered lines, two levels of names, bounded length."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

_MOST_CHARACTERS = 30_000
_MOST_NAMES = 1_000


def lines_of(content: str) -> list[str]:
    """The lines as compilers and grep count them, each with its end.

    What else Python takes for an end of a line, such as a form feed, stands inside of one.
    """
    lines = [f"{line}\n" for line in content.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def numbered(lines: Sequence[str], *, first: int) -> str:
    """Each line with its number, counted from `first`."""
    return "\n".join(f"{number:6}\t{line}" for number, line in enumerate(lines, start=first))


def show_file(path: Path, content: str, lines: tuple[int, int] | None) -> str:
    """The file, or lines first to last of it, cut where the model would drown."""
    every = [line.rstrip("\r\n") for line in lines_of(content)]
    first, last = lines or (1, len(every))
    shown = numbered(every[first - 1 : last], first=first)
    if len(shown) > _MOST_CHARACTERS:
        cut = shown.rfind("\n", 0, _MOST_CHARACTERS)
        shown = shown[: cut if cut > 0 else _MOST_CHARACTERS]
        shown += "\n[The rest is left out: use view_range to see it.]"
    return f"{path}, with line numbers:\n{shown}"


def show_directory(path: Path) -> str:
    """Names two levels deep without hidden ones; directories end in a slash."""
    names = list(itertools.islice(_names(path, depth=2), _MOST_NAMES + 1))
    more = f"\n[Only the first {_MOST_NAMES} names are shown.]" if len(names) > _MOST_NAMES else ""
    return (
        f"Files and directories in {path}, two levels deep, without hidden ones:\n"
        + "\n".join(names[:_MOST_NAMES])
        + more
    )


def _names(path: Path, *, depth: int) -> Iterator[str]:
    for entry in sorted(path.iterdir()):
        if entry.name.startswith("."):
            continue
        is_directory = entry.is_dir() and not entry.is_symlink()
        yield f"{entry}/" if is_directory else str(entry)
        if is_directory and depth > 1:
            try:
                yield from _names(entry, depth=depth - 1)
            except PermissionError:
                yield f"{entry}/ [not readable]"
