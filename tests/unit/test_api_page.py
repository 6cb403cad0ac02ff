"""docs/api.md speaks of the routes that there are."""

import re
from pathlib import Path

from orchestrator.api import conversations, inspection, links, metrics, operations, runtimes, settings, tenants
from orchestrator.facades.app_conversations import conversations as app_conversations
from orchestrator.facades.app_conversations import events as app_events
from orchestrator.facades.v0 import configuration
from orchestrator.facades.v0 import conversations as v0
from orchestrator.facades.v0 import files as v0_files

NATIVE = (conversations, inspection, links, metrics, operations, runtimes, settings, tenants)
OLDER = (configuration, v0, app_conversations, app_events, v0_files)

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def test_every_route_is_in_the_page() -> None:
    missing = []
    for module in (*NATIVE, *OLDER):
        for route in module.router.routes:
            last = re.sub(r"\{[a-z_]+\}", "", getattr(route, "path", "")).rstrip("/").rsplit("/", 1)[-1]
            if last not in PAGE:
                missing.append(getattr(route, "path", ""))
    assert missing == []
