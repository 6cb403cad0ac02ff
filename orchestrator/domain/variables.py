"""Environment variables that a caller gives to a runtime's shell. Their values are secrets, whatever they hold."""

import re
from collections.abc import Mapping

from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.secrets import SecretText, check_secret_value

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
MOST_VARIABLES = 500
_OWN = ("OH_", "NESTOR_")


def check_variables(variables: Mapping[str, str]) -> dict[str, SecretText]:
    """Raises `InvalidRequest` for names that no shell has, and for those by which an agent server is configured: set
    in the shell they would do nothing, and show a key to the agent."""
    if len(variables) > MOST_VARIABLES:
        raise InvalidRequest(f"more than {MOST_VARIABLES} variables", field="environment")
    return {_checked(name): check_secret_value(value) if value else SecretText("") for name, value in variables.items()}


def configures_server(name: str) -> bool:
    """Whether a variable of this name is the agent server's own, not its shell's."""
    return name.startswith(_OWN) or name == "SESSION_API_KEY"


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name[:80]!r} is no name of a variable",
            field="environment",
            hint="letters, digits and underscores, the first no digit",
        )
    if configures_server(name):
        raise InvalidRequest(
            f"{name} configures the agent server, which is Nestor's to do",
            field=f"environment.{name}",
            hint="leave it out",
        )
    return name
