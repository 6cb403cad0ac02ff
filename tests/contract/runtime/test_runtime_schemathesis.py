"""Every operation of our own document with generated requests, right and wrong ones: no 5xx, nothing undocumented.

The runtime is a real process without files and network to harm (tests/support/contained.py). NESTOR_SCHEMATHESIS=200
makes so many requests for each operation and kind instead of a few, which takes long.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from runtime.app import build_app
from runtime.settings import RuntimeSettings
from tests.support.contained import contained_runtime
from tests.support.runtimes import KEY

EXAMPLES = int(os.environ.get("NESTOR_SCHEMATHESIS", "6"))
DOCUMENT = build_app(RuntimeSettings()).openapi()
OPERATIONS = [(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods]
#: a 5xx that says what is not there
MEANT = {("GET", path) for path in ("/api/vscode/url", "/api/conversations/{conversation_id}/vscode/url")}
#: they ask the model, and here is none
NEED_A_MODEL = ("/ask_agent", "/condense")
CHECKS: list[Any] = [status_code_conformance, content_type_conformance, response_schema_conformance]


@dataclass
class Target:
    schema: Any
    url: str
    log: Path
    conversation: str


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with contained_runtime(tmp_path_factory.mktemp("contained")) as (url, log):
        schema = schemathesis.openapi.from_dict(httpx.get(f"{url}/openapi.json", trust_env=False).json())
        schema.config.update(base_url=url)
        llm = {"model": "openai/none", "api_key": "sk-x", "base_url": "http://127.0.0.1:1/v1", "num_retries": 0}
        body = {"agent": {"llm": llm}, "workspace": {"working_dir": "/workspace"}}
        made = httpx.post(
            f"{url}/api/conversations", json=body, headers={"X-Session-API-Key": KEY}, timeout=60, trust_env=False
        )
        assert made.status_code == 201, made.text
        yield Target(schema, url, log, made.json()["id"])
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_an_operation_answers_whatever_it_is_sent(target: Target, method: str, path: str) -> None:
    operation = target.schema[path][method]
    kinds = st.sampled_from([GenerationMode.POSITIVE, GenerationMode.NEGATIVE])

    @seed(20261126)
    @settings(
        max_examples=2 * EXAMPLES if operation_varies(method, path) else 1,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def one_request(data: st.DataObject) -> None:
        positive = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        kind = data.draw(kinds)
        case = data.draw(positive if kind is GenerationMode.POSITIVE else wrong_or(operation, positive))
        is_real = data.draw(st.booleans())
        if is_real and "conversation_id" in (case.path_parameters or {}) and not path.endswith(NEED_A_MODEL):
            case.path_parameters["conversation_id"] = target.conversation
        if method == "DELETE" and path == "/api/conversations/{conversation_id}":
            case.path_parameters["conversation_id"] = "01234567-89ab-cdef-0123-456789abcdef"
        send(case, method, path)

    one_request()


def operation_varies(method: str, path: str) -> bool:
    operation = DOCUMENT["paths"][path][method.lower()]
    return bool(operation.get("parameters") or "requestBody" in operation)


def wrong_or(operation: Any, positive: Any) -> Any:
    """Requests that break the document; where none can, right ones."""
    varies = operation_varies(operation.method.upper(), operation.path)
    return operation.as_strategy(generation_mode=GenerationMode.NEGATIVE) if varies else positive


def send(case: Case, method: str, path: str) -> None:
    if isinstance(case.body, dict) and isinstance(case.body.get("timeout"), int | float):
        case.body["timeout"] = min(case.body["timeout"], 1)  # what runs on keeps nobody waiting
    answer = case.call(headers={"X-Session-API-Key": KEY}, timeout=30)
    if (method, path) in MEANT and answer.status_code == 503:
        return
    if path.endswith(NEED_A_MODEL) and answer.status_code == 502:  # of a conversation that another operation has made
        return
    assert answer.status_code < 500, (case.as_curl_command(), answer.text)
    case.validate_response(answer, checks=CHECKS)
