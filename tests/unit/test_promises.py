"""The pages of promises name tests that exist, and promise nothing without one."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from orchestrator.domain.conversation import Reason

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")
LOOSE = re.compile(r"`((?:tests/[\w/]+/)?test_\w+)(\.py)?`")


def names() -> dict[str, set[str]]:
    """Tests by the name of their file; files of one name count together."""
    found: dict[str, set[str]] = {}
    for file in (ROOT / "tests").rglob("*.py"):
        tree = ast.parse(file.read_text())
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        own = {node.name for node in ast.walk(tree) if isinstance(node, kinds)}
        own |= {one.id for node in ast.walk(tree) if isinstance(node, ast.Assign) for one in _plain(node.targets)}
        found.setdefault(file.name, set()).update(own)
    return found


def _plain(targets: Iterable[ast.expr]) -> list[ast.Name]:
    return [one for one in targets if isinstance(one, ast.Name)]


def promises(page: str) -> list[str]:
    """Numbered items, and rows of tables of which a column says by what they are shown."""
    text = (DOCS / page).read_text()
    items = re.findall(r"^\d+\. .*?(?=^\d+\. |^## |^$)", text, re.M | re.S)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        head, _, *rows = table.splitlines()
        items += rows if "shown by" in head else []
    return items


@pytest.mark.parametrize("page", ["guarantees.md", "faults.md", "states.md", "docker.md"])
def test_each_test_that_is_named_exists(page: str) -> None:
    known = names()
    every = {name for own in known.values() for name in own}
    text = (DOCS / page).read_text()
    missing = [f"{file}::{name}" for file, name in NAMED.findall(text) if name not in known.get(Path(file).name, set())]
    for name, is_file in LOOSE.findall(text):
        if is_file and f"{Path(name).name}.py" not in known:
            missing.append(f"{name}.py")
        elif not is_file and Path(name).name not in every:
            missing.append(name)
    assert missing == []


@pytest.mark.parametrize("page", ["guarantees.md", "faults.md"])
def test_nothing_is_promised_without_a_test(page: str) -> None:
    found = promises(page)
    assert len(found) > 10
    assert [item[:80] for item in found if not (NAMED.search(item) or LOOSE.search(item) or "`tests/" in item)] == []


def test_each_part_of_the_page_of_phases_says_by_what_it_is_shown() -> None:
    parts = re.split(r"^#+ ", (DOCS / "states.md").read_text(), flags=re.M)[1:]
    assert len(parts) > 6
    assert [part.partition("\n")[0] for part in parts if not NAMED.search(part)] == []


def test_folders_that_are_named_exist() -> None:
    text = (DOCS / "guarantees.md").read_text()
    assert [name for name in re.findall(r"`(tests/[\w/]+)`", text) if not (ROOT / name).is_dir()] == []


def test_each_reason_is_produced_by_a_test() -> None:
    text = (DOCS / "faults.md").read_text().partition("## Reasons")[2]
    assert [reason for reason in Reason if f"`{reason}`" not in text] == []
