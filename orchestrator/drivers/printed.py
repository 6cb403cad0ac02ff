"""What a runtime printed, as the lines that are shown of it: for every driver, whatever keeps the text.

A line is shown up to a readable length. Where a value that must not be seen lies across that cut, whoever takes such
values out has to know that there was one (`CUT`).
"""

from collections.abc import Sequence

LINE_CHARACTERS = 2000
CUT = "…"  #: the end of a line that went on


def last_lines(text: bytes, lines: int, *, is_whole: bool) -> Sequence[str]:
    """The last lines of a text; with `is_whole` false it is the end of a longer one, and what its first line is left of
    is not told: it would be another one at each look, and might be the end of something secret."""
    found = text.decode(errors="replace").splitlines()
    if not is_whole:
        found = found[1:] or [f"(a line of more than {len(text)} bytes)"]
    return [_readable(line) for line in found[-lines:]] if lines > 0 else ()


def _readable(line: str) -> str:
    return line if len(line) <= LINE_CHARACTERS else line[: LINE_CHARACTERS - len(CUT)] + CUT
