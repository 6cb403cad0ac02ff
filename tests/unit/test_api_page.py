"""docs/api.md speaks of the routes that there are."""

import re
from pathlib import Path

from orchestrator.api import conversations, inspection, metrics, older, operations, settings, tenants

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def test_every_route_is_in_the_page() -> None:
    missing = []
    for module in (conversations, inspection, metrics, older, operations, settings, tenants):
        for route in module.router.routes:
            last = re.sub(r"\{[a-z_]+\}", "", getattr(route, "path", "")).rstrip("/").rsplit("/", 1)[-1]
            if last not in PAGE:
                missing.append(getattr(route, "path", ""))
    assert missing == ["/api/unset-provider-tokens"]  # an older extra that nobody has to know
