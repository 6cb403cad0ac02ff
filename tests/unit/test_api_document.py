"""What the document says of failures is what is sent."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi.routing import APIRoute
from jsonschema import Draft202012Validator
from starlette.requests import Request

from orchestrator.api import document, problems, tenants
from orchestrator.api.auth import operator
from orchestrator.api.context import Services
from orchestrator.app import api
from orchestrator.domain import errors


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    return api.build(cast(Services, SimpleNamespace(about={"version": "1"}))).openapi()


def test_every_failure_of_the_native_api_is_a_problem_and_takes_a_key(said: dict[str, Any]) -> None:
    native = {path: of for path, of in said["paths"].items() if path.startswith(document.NATIVE)}
    assert len(native) > 40
    for path, operations in native.items():
        for method, operation in operations.items():
            taken = [{"key": []}] if (method, path) in document.OPERATORS else [{"key": []}, {"token": []}]
            assert operation["security"] == taken, (method, path)
            failures = {
                status: one for status, one in operation["responses"].items() if status >= "4" and status != "416"
            }
            assert {"401", "403", "503"} <= set(failures), (method, path)
            for status, one in failures.items():
                assert list(one["content"]) == [document.MEDIA_TYPE], (method, path, status)
    assert "HTTPValidationError" not in json.dumps(native)


def test_calls_of_the_operator_are_those_that_refuse_everybody_else() -> None:
    app = api.build(cast(Services, SimpleNamespace(about={"version": "1"})))
    found = {
        (method.lower(), route.path)
        for route in tenants.router.routes
        if isinstance(route, APIRoute) and any(one.call is operator for one in route.dependant.dependencies)
        for method in route.methods
    }
    assert found == document.OPERATORS
    assert {path for _, path in found} <= set(app.openapi()["paths"])


def test_every_success_of_the_native_api_is_declared_field_by_field(said: dict[str, Any]) -> None:
    """That it is true is seen in `test_answers.py`; a route that says nothing would pass there."""
    named = 0
    for path, operations in said["paths"].items():
        for operation in operations.values() if path.startswith(document.NATIVE) else ():
            for status, one in operation["responses"].items():
                schema = one.get("content", {}).get("application/json", {}).get("schema")
                if status >= "3" or schema is None:
                    continue
                for answer in schema.get("anyOf", [schema]):
                    assert list(answer) == ["$ref"], (path, status, schema)
                    declared = said["components"]["schemas"][answer["$ref"].rpartition("/")[2]]
                    assert declared["additionalProperties"] is False
                    named += 1
    assert named > 50


def test_every_request_and_every_answer_has_an_example_that_is_as_its_schema_says(said: dict[str, Any]) -> None:
    shown = 0
    for path, operations in said["paths"].items():
        for method, operation in operations.items() if path.startswith(document.NATIVE) else ():
            told = [one for status, one in operation["responses"].items() if status < "3"]
            for part in (operation.get("requestBody", {}), *told):
                content = part.get("content", {}).get("application/json")
                if content is None:
                    continue
                examples = (
                    [content["example"]]
                    if "example" in content
                    else [one["value"] for one in content["examples"].values()]
                )
                schema = Draft202012Validator({**content["schema"], "components": said["components"]})
                for example in examples:
                    assert [one.message for one in schema.iter_errors(example)] == [], (method, path, example)
                    assert list(schema.iter_errors({**example, "more": object()})), (method, path)  # it would be seen
                    shown += 1
    assert shown > 110


def test_what_is_sent_is_as_the_document_says(said: dict[str, Any]) -> None:
    schema = said["components"]["schemas"]["Problem"]
    request = Request({"type": "http", "headers": [], "state": {"request_id": "r"}})
    sent = [
        errors.NotFound("none"),
        errors.Conflict("no", hint="start it"),
        errors.InvalidRequest("wrong", field="limit"),
        errors.LimitReached("full", rule="tenant.runtimes", limit=5, current=5, retry_after=3),
        errors.StoreUnavailable("away"),
        errors.PreconditionFailed("changed"),
        errors.Elapsed("later", conversation="c", operation="o"),
    ]
    for error in sent:
        answer = problems.of_error(request, error)
        body = json.loads(bytes(answer.body))
        assert answer.headers["content-type"] == document.MEDIA_TYPE
        assert set(schema["required"]) <= set(body) <= set(schema["properties"]), body


def test_examples_are_of_the_codes_and_statuses_that_there_are() -> None:
    statuses = {kind.code: status for kind, status in problems.STATUS}
    statuses["store_unavailable"] = statuses["unavailable"]
    for status, (_, code, _, _) in document.FAILURES.items():
        assert statuses[code] == status
