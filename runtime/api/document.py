"""What `/openapi.json` says beside what the routes say themselves: refusals, bodies of several forms, other contents.

FastAPI's own document knows the parameters and the bodies that it parses. Made once, when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from runtime.api.bodies import MOST_IDS, Body
from runtime.api.events import EventBody, OlderAction
from runtime.api.profiles import Saved
from runtime.conversations.older import OlderStart
from runtime.conversations.start import StartRequest

#: what is told with the status and the words for it
_TOLD = {
    400: "The request cannot be carried out as it is",
    401: "No key, or a wrong one",
    403: "The caller is not told this",
    404: "There is none",
    409: "It cannot be done in this state",
    412: "It is not as the caller has seen it",
    416: "The file has no such part",
    413: "The body is too large",
    422: "The request is not valid",
    429: "Too much is being done at once",
    500: "A failure of this server, in its log under the `error_id`",
    502: "The model could not be asked",
    503: "Not available now; the reason is given",
    504: "It was not done in time; it goes on",
}
#: bodies that a route parses itself
_BODIES: Mapping[str, Sequence[type[BaseModel]]] = {
    "post /api/conversations": (StartRequest, OlderStart),
    "post /api/conversations/{conversation_id}/events": (EventBody, OlderAction),
    "post /api/profiles/{name}": (Saved,),
    "post /api/profiles/{name}/validate": (Saved,),
}
_IDS = {"type": "array", "items": {"type": "string"}, "maxItems": MOST_IDS}
_UPLOAD = {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}, "required": ["file"]}
_BYTES = {"type": "string", "format": "binary"}
#: what is answered instead of JSON, by the end of the path
_CONTENTS: Mapping[str, Mapping[str, Any]] = {
    "get /settings/secrets/{name}": {"text/plain": {"schema": {"type": "string"}}},
    "get /file/download": {"application/octet-stream": {"schema": _BYTES}},
    "get /file/archive": {"text/x-patch": {"schema": _BYTES}, "application/gzip": {"schema": _BYTES}},
    "get /file/download-trajectory/{trajectory_id}": {"application/zip": {"schema": _BYTES}},
    "get /files": {"application/json": {"schema": {"type": "object"}}, "*/*": {"schema": _BYTES}},
    "get /files/{path}": {"application/json": {"schema": {"type": "object"}}, "*/*": {"schema": _BYTES}},
    "get /copy/archive": {"application/x-tar": {"schema": _BYTES}},
    "get /workspace": {"*/*": {"schema": _BYTES}},
    "get /workspace/{file_path}": {"*/*": {"schema": _BYTES}},
}
#: the status of success where it is not 200
_DONE: Mapping[str, int] = {
    "post /api/profiles/{name}": 201,
    "post /api/settings/mcp/{settings_key}": 201,
    "post /conversations/{conversation_id}/fork": 201,
    "post /conversations/{conversation_id}/children": 201,
}
#: statuses beside those that every route of its kind has
_ALSO: Mapping[str, Sequence[int]] = {
    "get /ready": (503,),
    "patch /api/settings": (404,),
    "post /api/settings/digests": (403,),
    "get /": (302,),
    "post /api/init": (500,),
    "post /api/conversations": (201, 429),
    "post /api/secrets": (201,),
    "post /run": (429,),
    "post /events": (429,),
    "post /message": (429,),
    "post /children": (429,),
    "post /events/respond_to_confirmation": (429,),
    "post /v1/chat/completions": (429, 500, 504),
    "post /v1/responses": (429, 500, 504),
    "post /ask_agent": (500, 502),
    "post /condense": (502,),
    "get /file/download": (206, 304, 416),
    "get /files": (206, 304, 412, 416),
    "get /files/{path}": (206, 304, 412, 416),
    "put /files/{path}": (201, 204, 412),
    "delete /files/{path}": (412,),
    "get /workspace": (206, 304, 416),
    "get /workspace/{file_path}": (206, 304, 416),
}


class Refusal(Body):
    """Why not: words, or a list of what is wrong with which field. The older routes say `message` or `error`."""

    detail: str | list[dict[str, Any]] | None = None


def install(app: FastAPI) -> None:
    """The application's document becomes this one."""
    made = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = completed(made())
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way of doing this


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """The same document with everything above in it."""
    named: set[type[BaseModel]] = {Refusal, *(model for models in _BODIES.values() for model in models)}
    references, definitions = models_json_schema(
        [(model, "validation") for model in sorted(named, key=lambda model: model.__name__)],
        ref_template="#/components/schemas/{model}",
    )
    refer = {model: references[model, "validation"] for model in named}
    document["components"]["schemas"].update(definitions["$defs"])
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            place = f"{method} {path}"
            if place in _BODIES:
                _takes(operation, "application/json", {"anyOf": [refer[model] for model in _BODIES[place]]})
            elif place.endswith("/file/upload"):
                _takes(operation, "multipart/form-data", _UPLOAD)
            elif place == "put /api/conversations/{conversation_id}/copy/archive":
                _takes(operation, "application/octet-stream", _BYTES)
            elif place == "put /api/conversations/{conversation_id}/files/{path}":
                _takes(operation, "application/octet-stream", _BYTES, required=False)
            elif place.endswith("/bash/bash_events/") and method == "get":
                _takes(operation, "application/json", _IDS)
            elif place == "get /api/conversations/{conversation_id}/events":
                _takes(operation, "application/json", _IDS, required=False)  # the older page has none
            _answers(operation, method, path, refer[Refusal])
    return document


def _takes(operation: dict[str, Any], kind: str, schema: Mapping[str, Any], *, required: bool = True) -> None:
    operation["requestBody"] = {"required": required, "content": {kind: {"schema": schema}}}


def _answers(operation: dict[str, Any], method: str, path: str, refusal: Mapping[str, Any]) -> None:
    responses = operation["responses"]
    if contents := _of(_CONTENTS, method, path):
        responses["200"]["content"] = contents
    if done := _of(_DONE, method, path):
        responses[str(done)] = responses.pop("200")
    for status in _statuses(operation, method, path):
        told = {"description": _TOLD.get(status, "Done")}
        if status >= 400:
            told["content"] = {"application/json": {"schema": refusal}}  # type: ignore[assignment]
        responses.setdefault(str(status), {}).update(told)


def _statuses(operation: Mapping[str, Any], method: str, path: str) -> set[int]:
    found = {409, *(_of(_ALSO, method, path) or ())}  # 409: another generation, or a stale fence
    if path.startswith(("/api/", "/v1/")):
        found |= {400, 401, 413, 503}
    if "{" in path or (path.startswith("/v1/") and method == "post"):
        found |= {404}
    if "path" in {parameter["name"] for parameter in operation.get("parameters", ())} or path == "/api/init":
        found |= {404}
    if operation.get("parameters") or "requestBody" in operation:
        found |= {422}
    return found


def _of(table: Mapping[str, Any], method: str, path: str) -> Any:
    """The entry of the whole path, else of its end."""
    exact = table.get(f"{method} {path}")
    if exact is not None:
        return exact
    ends = (entry for entry in table if entry.startswith(f"{method} /") and not entry.startswith(f"{method} /api/"))
    return next(
        (table[end] for end in ends if len(end) > len(method) + 2 and path.endswith(end.partition(" ")[2])), None
    )
