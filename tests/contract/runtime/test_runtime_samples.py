"""Every sample of the contract is covered: its exchange is made again and compared in depth, or a test names it."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.demo.model_server import ScriptedModel
from tests.support.replay import SAMPLES, Replay, is_exchange, sample
from tests.support.runtimes import runtime_at

pytestmark = pytest.mark.anyio


def differences(ours: Any, theirs: Any, place: str = "") -> Iterator[str]:
    """Fields that only one has, and values of another type; of lists the first elements."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        yield from (f"{place}.{key} is missing" for key in theirs.keys() - ours.keys())
        yield from (f"{place}.{key} is ours alone" for key in ours.keys() - theirs.keys())
        for key in theirs.keys() & ours.keys():
            yield from differences(ours[key], theirs[key], f"{place}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list):
        if ours and theirs:
            yield from differences(ours[0], theirs[0], f"{place}[]")
    elif type(ours) is not type(theirs):
        shown = {".title": "TITLE", ".last_user_message_id": "ID"}.get(place) or json.dumps(ours)[:60]
        yield f"{place} is {shown}, captured was {json.dumps(theirs)[:60]}"


#: what differs on purpose (docs/runtime.md), or depends on what was done before
MEANT = {
    "01-server_info": {".nestor is ours alone"},
    "02-settings-patch-invalid": {".errors is ours alone"},
    "02-settings-patch-misc": {".agent_settings.mcp_config.svc is ours alone"},
    # a validation error does not repeat what was sent
    "04-conversation-get-422": {".detail[].ctx is missing", ".detail[].input is missing"},
    "04-conversation-start-422": {".detail[].ctx is missing", ".detail[].input is missing"},
    "08-file-create-directory": {".detail[].input is missing"},
    # an older client reads these of the same record
    "04-conversation-get": {f".{name} is ours alone" for name in ("conversation_id", "status", "runtime_status")},
    "04-conversation-get-secret-registry": {
        *(f".{name} is ours alone" for name in ("conversation_id", "status", "runtime_status")),
        ".tags.env is missing",  # changed later here
    },
    "04-fork": {
        ".tags.env is ours alone",  # changed earlier here
        *(f".secret_registry.secret_sources.{name} is ours alone" for name in "ABCD"),
        ".last_user_message_id is ID, captured was null",
    },
    # the title is there with the message, not some time after it
    "04-conversation-start": {".title is TITLE, captured was null"},
    "04-conversation-start-encrypted": {".title is TITLE, captured was null"},
    "10-vscode-url": {".exception is missing"},  # the reason is in `detail`
}


#: short answers whose values depend on what was done before
VALUES_DIFFER = {
    *("05-events-search-page", "07-bash-clear", "07-bash-search", "08-file-home", "08-file-search-subdirs"),
    *("04-conversations-search", "09-git-commits", "10-profile-get", *MEANT),
}


async def test_every_captured_exchange_is_answered_alike(tmp_path: Path) -> None:
    async with ScriptedModel() as model, runtime_at(tmp_path, model.base_url) as runtime:
        answers = await Replay(runtime, {}).all()
    found = []
    for path in sorted(SAMPLES.glob("*.json")):
        captured = sample(path.stem)
        if is_exchange(captured):
            if has_fixed_values(path.stem, captured["response"]["body"]):
                assert answers[path.stem].json() == captured["response"]["body"], path.stem
            differing = {*compared(answers[path.stem], captured["response"])} - MEANT.get(path.stem, set())
            found += [f"{path.stem} {line}" for line in sorted(differing)]
    assert found == []


def has_fixed_values(name: str, body: Any) -> bool:
    return isinstance(body, dict) and len(body) <= 3 and name not in VALUES_DIFFER


#: samples that one test takes all of, by a pattern of their names
FAMILIES = {
    "05-event-*": "conversations/test_runtime_conversation_records.py::test_a_captured_event_is_one_of_ours_to_the_byte"
}


def test_every_sample_is_covered() -> None:
    here = Path(__file__).parent
    named = {sample: test for path in sorted(here.parents[1].rglob("test_*.py")) for sample, test in names_in(path)}
    uncovered = []
    for path in sorted(SAMPLES.glob("*.json")):
        family = next((test for pattern, test in FAMILIES.items() if path.match(f"{pattern}.json")), None)
        cover = "replayed" if is_exchange(sample(path.stem)) else family or named.get(path.stem)
        uncovered += [path.stem] if cover is None else []
    assert uncovered == []
    for test in FAMILIES.values():
        file, _, function = test.partition("::")
        assert f"def {function}(" in (here / file).read_text()


def names_in(path: Path) -> Iterator[tuple[str, str]]:
    """Texts in the tests of a module, and in what they are parametrised with: names of samples among them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                    yield inner.value, f"{path.name}::{node.name}"


def compared(answer: httpx.Response, captured: dict[str, Any]) -> Iterator[str]:
    if answer.status_code != captured["status"]:
        yield f"status {answer.status_code}, captured was {captured['status']}: {answer.text[:200]}"
    if answer.headers["content-type"] != captured["content_type"]:
        yield f"content type {answer.headers['content-type']}, captured was {captured['content_type']}"
    if captured["content_type"] == "application/json":
        yield from differences(answer.json(), captured["body"])
    elif answer.text != captured["body"]:
        yield f"body {answer.text!r}"
