"""What all groups of settings have in common: the names of their variables, and what
several of them check.

The validators of a group have names of their own: of two with one name only one would be asked.
"""

import re
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings, SettingsConfigDict

_HOST = re.compile(r"[^\s/@]+")


class Settings(BaseSettings):
    """One field a variable; the docstring under each says its unit and why its default is what it is."""

    model_config = SettingsConfigDict(env_prefix="NESTOR_", extra="forbid", use_attribute_docstrings=True)


def listed(text: str) -> frozenset[str]:
    """The items of a comma list, without blanks and empty ones."""
    return frozenset(item.strip() for item in text.split(",") if item.strip())


def given(value: Any) -> Any:
    """The same. Raises `ValueError` for a text of nothing."""
    if isinstance(value, str) and not value.strip():
        raise ValueError("it is empty: leave it out for its default")
    return value


def absolute(path: Path | None) -> Path | None:
    """The path from the root, with `~` as the home."""
    return None if path is None else path.expanduser().absolute()


def hosts(text: str) -> str:
    """The same. Raises `ValueError` when an item of the comma list is no host, with or without a port."""
    for host in sorted(listed(text)):
        if not _HOST.fullmatch(host):
            raise ValueError(f"{host[:60]!r} is no host: no scheme, no path, no spaces")
    return text
