"""The pages that list things list all of them."""

from pathlib import Path

from orchestrator.domain.conversation import Phase, Reason
from orchestrator.settings import OrchestratorSettings

DOCS = Path(__file__).parents[2] / "docs"


def test_every_variable_is_described() -> None:
    page = (DOCS / "configuration.md").read_text()
    missing = [name for name in OrchestratorSettings.model_fields if f"`NESTOR_{name.upper()}`" not in page]
    assert missing == []


def test_every_phase_and_reason_is_described() -> None:
    page = (DOCS / "states.md").read_text()
    assert [phase for phase in Phase if phase not in page] == []
    assert [reason for reason in Reason if f"`{reason}`" not in page] == []


def test_the_walk_names_files_that_exist() -> None:
    root = DOCS.parent
    page = (DOCS / "architecture.md").read_text()
    for room in ("api", "services", "proxy", "state", "nested", "drivers", "app"):
        assert (root / "orchestrator" / room).is_dir()
    for name in ("proxy/protocol.py", "proxy/target.py", "state/durability.py", "nested/client.py", "app/routing.py"):
        assert f"`{name}`" in page
        assert (root / "orchestrator" / name).is_file()
