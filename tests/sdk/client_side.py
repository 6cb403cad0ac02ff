"""What the client programs of this folder share: scripts for the model, waiting, and the one line of report.

Imported by programs that the SDK's own interpreter runs, never by pytest.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from openhands.sdk import LLM, Agent
from openhands.tools.preset.default import get_default_agent


def script(*steps: object) -> str:
    return f"SCRIPT:{json.dumps(list(steps))}"


def terminal(command: str) -> dict[str, Any]:
    return {"tool": "terminal", "args": {"command": command}}


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition did not come true in time"
        time.sleep(0.05)


def model(url: str, key: str) -> LLM:
    return LLM(model="openai/gpt-4o-mini", api_key=key, base_url=url, num_retries=0, usage_id="agent")


def agent_of(llm: LLM) -> Agent:
    """The usual agent without its condenser, so that a long conversation stays as it is."""
    return get_default_agent(llm=llm, cli_mode=True).model_copy(update={"condenser": None})


def report(**found: object) -> None:
    print("REPORT " + json.dumps(found))  # noqa: T201 - the report
