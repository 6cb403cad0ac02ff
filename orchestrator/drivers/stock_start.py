"""How a stock agent server gets its keys, from both drivers that run programs: as lines on its standard input.

It reads them from its environment. So a shell takes the lines and gives them to that server alone: they are in no
argument, in no environment that an engine shows, and in no file. `process_spawn.py` and `docker_spec.py` use it.
"""

from collections.abc import Sequence

from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.errors import StartRefused
from orchestrator.drivers.values import Dialect, ServingKeys

SHELL = "/bin/sh"
#: dialect -> the variables that the lines fill, in order, and those that are said beside them
_TAKEN = {Dialect.DORMANT: ("OH_SECRET_KEY",), Dialect.CONFIGURED: ("OH_SECRET_KEY", "OH_SESSION_API_KEYS_0")}
_SAID = {Dialect.DORMANT: {"OH_DEFERRED_INIT": "true"}, Dialect.CONFIGURED: {"OH_DEFERRED_INIT": "false"}}


def shell_words(dialect: Dialect) -> list[str]:
    """What stands before the server's own command. Without all of its keys it is not started."""
    script = "".join(f"IFS= read -r {name} && " for name in _TAKEN[dialect])
    exported = [*_TAKEN[dialect], *(f"{name}={value}" for name, value in _SAID[dialect].items())]
    return [SHELL, "-c", f'{script}export {" ".join(exported)} && exec "$@" </dev/null', "sh"]


def key_lines(dialect: Dialect, init_key: SecretText, serving: ServingKeys | None) -> Sequence[SecretText]:
    """What is written to its standard input, or to that of a server of ours, a line each.

    Raises `StartRefused` for a server that is never bound where nobody said what it is to serve under.
    """
    if dialect is not Dialect.CONFIGURED:
        return [init_key]
    if serving is None:
        raise StartRefused(
            "this agent server gets its keys as it starts, and there are none yet",
            hint="leave it out of the warm pool, or have it started dormant (NESTOR_STOCK_START)",
        )
    return [serving.state, serving.session]
