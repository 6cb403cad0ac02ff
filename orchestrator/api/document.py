"""What `/openapi.json` says of the native API beside what its routes say themselves: keys, examples, and failures as
they are.

FastAPI documents validation errors in a form of its own that is never sent here: every failure is a problem document
(`problems.py`). Made once, when somebody asks for it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI

from orchestrator.api import examples

NATIVE = "/api/v2/"
_JSON = "application/json"
MEDIA_TYPE = "application/problem+json"
_FRAMEWORKS_OWN = ("HTTPValidationError", "ValidationError")
_REFERENCE = {"$ref": "#/components/schemas/Problem"}
_TEXT, _MAYBE = {"type": "string"}, {"type": ["string", "null"]}
_NUMBER = {"type": "integer"}

_IDEMPOTENCY_KEY: Mapping[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A repeat with the same key and body is given the first answer again, for 24 hours",
    "schema": {**_TEXT, "minLength": 1, "maxLength": 255},
}
_FOR_TENANT: Mapping[str, Any] = {
    "name": "X-Act-As-Tenant",
    "in": "header",
    "description": "With the operator's key: the tenant that is spoken for",
    "schema": {**_TEXT, "format": "uuid"},
}
_FOR_USER: Mapping[str, Any] = {
    "name": "X-Act-As-User",
    "in": "header",
    "description": "With a tenant's key, or the operator's for a tenant: the user that is acted for",
    "schema": {**_TEXT, "format": "uuid"},
}
_IF_NONE_MATCH: Mapping[str, Any] = {
    "name": "If-None-Match",
    "in": "header",
    "description": "The `ETag` of an answer: 304 while it would be the same",
    "schema": _TEXT,
}

PROBLEM: Mapping[str, Any] = {
    "type": "object",
    "description": "Why not (RFC 9457). `code` is stable and for programs, `detail` for people.",
    "required": ["type", "title", "status", "detail", "error", "code", "request_id", "retryable"],
    "properties": {
        "type": {**_TEXT, "description": "urn:nestor:problem:<code>"},
        "title": _TEXT,
        "status": _NUMBER,
        "instance": {**_TEXT, "description": "urn:nestor:request:<request_id>"},
        "detail": _TEXT,
        "error": {**_TEXT, "description": "`detail` again, for clients of the older generation"},
        "message": {**_TEXT, "description": "`detail` again, for clients of the older generation"},
        "code": _TEXT,
        "request_id": {**_MAYBE, "description": "The X-Request-ID of the answer, under which the log has it"},
        "retryable": {"type": "boolean", "description": "Whether the same request may work later"},
        "retry_after": {**_NUMBER, "description": "Seconds, as in the header Retry-After"},
        "hint": {**_TEXT, "description": "What to do"},
        "field": {**_TEXT, "description": "Which field of the request is wrong"},
        "errors": {
            "type": "array",
            "description": "Every field that is wrong",
            "items": {
                "type": "object",
                "required": ["field", "message", "type"],
                "properties": {"field": _TEXT, "message": _TEXT, "type": _TEXT},
            },
        },
        "rule": {**_TEXT, "description": "Which limit is reached, such as tenant.runtimes"},
        "limit": {"type": "number", "description": "Dollars where the rule is of dollars, else a whole number"},
        "current": {"type": "number"},
        "resets_at": {**_TEXT, "format": "date-time", "description": "When what was spent of a budget counts from 0"},
        "conversation": _TEXT,
        "operation": _TEXT,
        "cause": {
            "type": "object",
            "description": "Why there is no runtime, of one that failed: as its record has it",
            "required": ["reason", "message", "hint", "retryable", "step", "log_tail"],
            "properties": {
                "reason": _TEXT,
                "message": _TEXT,
                "hint": _TEXT,
                "retryable": {"type": "boolean"},
                "step": _MAYBE,
                "log_tail": {"type": "array", "items": _TEXT},
            },
        },
    },
}
#: status -> (what it means, code and detail of an example, more of it)
FAILURES: Mapping[int, tuple[str, str, str, Mapping[str, Any]]] = {
    401: ("No key, or one that is not valid", "unauthenticated", "the API key is not valid", {}),
    403: ("The key may not do this", "forbidden", "this key lacks the scope write", {}),
    404: ("There is none, or it is another tenant's", "not_found", "there is no such conversation", {}),
    408: ("It was waited for in vain; the start goes on", "wait_elapsed", "not ready within 30 seconds", {}),
    409: ("It cannot be done in its state", "conflict", "the conversation is stopped", {"hint": "start it"}),
    410: ("It is deleted, and can be brought back", "gone", "the conversation is deleted", {"hint": "undelete it"}),
    412: ("It is not as the caller has seen it", "precondition_failed", "the file changed since it was read", {}),
    400: ("The body is not JSON, or a header not of its form", "bad_request", "the body is not JSON", {}),
    413: ("The body is too large", "too_large", "the body is larger than 2097152 bytes", {}),
    415: ("The body is of another type", "unsupported_media_type", "this call takes application/json", {}),
    422: ("The request is not valid", "invalid_request", "limit: not a number", {"field": "limit"}),
    429: ("A limit is reached", "limit_reached", "as many run as may", {"rule": "tenant.runtimes", "limit": 5}),
    503: ("Not now; Retry-After says when", "store_unavailable", "the state server did not answer in time", {}),
}
_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    409: "Conflict",
    410: "Gone",
    412: "Precondition Failed",
    413: "Request Entity Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Entity",
    429: "Too Many Requests",
    503: "Service Unavailable",
}


_RESTORED = ("{conversation}", "{runtime}")  #: what can be brought back after a deletion
#: Calls that take the operator's key and nothing else.
OPERATORS = frozenset(
    {
        ("post", "/api/v2/tenants"),
        ("get", "/api/v2/tenants"),
        ("get", "/api/v2/tenants/count"),
        ("patch", "/api/v2/tenants/{tenant}"),
    }
)


def install(app: FastAPI) -> None:
    """The application's document becomes this one."""
    made = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = completed(made())
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way of doing this


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """The same document, with the failures and the keys of every native route."""
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = dict(PROBLEM)
    components.setdefault("securitySchemes", {})["key"] = {
        "type": "http",
        "scheme": "bearer",
        "description": "An operator's, a tenant's or a user's key",
    }
    components["securitySchemes"]["token"] = {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token of the operator's own issuer (NESTOR_JWT_KEYS), for a user of a tenant",
    }
    for path, operations in document["paths"].items():
        if path.startswith(NATIVE):
            for method, operation in operations.items():
                taken = ("key",) if (method, path) in OPERATORS else ("key", "token")
                operation["security"] = [{scheme: []} for scheme in taken]
                _undo_guesses(operation["responses"])
                _exemplify(path, method, operation)
                _tell_headers(path, method, operation)
                if not path.startswith("/api/v2/tenants"):
                    operation.setdefault("parameters", []).extend((dict(_FOR_TENANT), dict(_FOR_USER)))
                operation["responses"].update(
                    {str(status): _failure(status) for status in _statuses(path, method, operation)}
                )
    for name in _FRAMEWORKS_OWN:
        if not any(reference.endswith(f"/{name}") for reference in _references(document["paths"])):
            schemas.pop(name, None)
    return document


def _exemplify(path: str, method: str, operation: dict[str, Any]) -> None:
    """Of what is sent, and of every JSON answer of success; of one that may be two things, each by its name."""
    sent = operation.get("requestBody", {}).get("content", {}).get(_JSON)
    if sent is not None:
        (name,) = _named(sent["schema"])
        sent["example"] = examples.REQUESTS[name]
    for status, response in operation["responses"].items():
        told = response.get("content", {}).get(_JSON)
        if not status.startswith("2") or told is None or not (names := list(_named(told["schema"]))):
            continue
        found = {name: examples.answer(name, status=int(status), method=method, path=path) for name in names}
        if len(found) == 1:
            told["example"] = found[names[0]]
        else:
            told["examples"] = {name: {"value": example} for name, example in found.items()}


def _named(schema: Mapping[str, Any]) -> Iterator[str]:
    """The schemas that it may be; none where it is null."""
    for one in schema.get("anyOf", [schema]):
        if "$ref" in one:
            yield one["$ref"].rpartition("/")[2]


def _tell_headers(path: str, method: str, operation: dict[str, Any]) -> None:
    """What middleware reads and writes: keys that make a call repeatable, and the tags of reads. Files have theirs."""
    if "/files" in path:
        return
    if method != "get":
        operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
        return
    answer = operation["responses"].get("200", {})
    if _JSON in answer.get("content", {}):
        operation.setdefault("parameters", []).append(_IF_NONE_MATCH)
        answer["headers"] = {"ETag": {"description": "Of this answer, for If-None-Match", "schema": _TEXT}}
        operation["responses"]["304"] = {"description": "As it was when it had that `ETag`; no body"}


def _undo_guesses(responses: Mapping[str, Any]) -> None:
    """FastAPI puts what it makes of a route's annotation (an object of anything) beside what the route declares."""
    for response in responses.values():
        for content in response.get("content", {}).values():
            schema = content.get("schema", {})
            for kind in ("$ref", "anyOf"):
                if kind in schema:
                    content["schema"] = {kind: schema[kind]}


def _statuses(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[int]:
    yield from (401, 403, 503)
    if "{" in path:
        yield 404
    if any(part in path for part in _RESTORED) and not path.endswith("/undelete"):
        yield 410
    if method != "get":
        yield from (409, 429)
    taken = {parameter["name"] for parameter in operation.get("parameters", ())}
    if "wait" in taken:
        yield 408
    if "If-Match" in taken or (path.endswith("/files/{path}") and method != "get"):
        yield 412
    if "requestBody" in operation:
        yield 413
        if _JSON in operation["requestBody"]["content"]:
            yield from (400, 415)
    if "422" in operation["responses"]:
        yield 422


def _failure(status: int) -> dict[str, Any]:
    meaning, code, detail, more = FAILURES[status]
    example = {
        "type": f"urn:nestor:problem:{code}",
        "title": _TITLES[status],
        "status": status,
        "detail": detail,
        "error": detail,
        "code": code,
        "request_id": "7f3c1d2e9b4a4f6e8d0c5b6a79881234",
        "instance": "urn:nestor:request:7f3c1d2e9b4a4f6e8d0c5b6a79881234",
        "retryable": status in (429, 503),
        **more,
    }
    return {"description": meaning, "content": {MEDIA_TYPE: {"schema": _REFERENCE, "example": example}}}


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            if name == "$ref" and isinstance(item, str):
                yield item
            else:
                yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)
