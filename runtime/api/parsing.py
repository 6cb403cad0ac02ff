"""Bodies of several forms on one path, which a route tells apart itself: parsed here, refused like all others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from runtime.api.bodies import check_json
from runtime.store.exposure import Opening

Model = TypeVar("Model", bound=BaseModel)


async def json_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object that can be stored and sent back. Raises RequestValidationError."""
    try:
        body = await request.json()
        check_json(body)
    except (ValueError, RecursionError):
        raise refused(None, "the body must be valid JSON of reasonable depth") from None
    if not isinstance(body, dict):
        raise refused(None, "the body must be a JSON object")
    return body


def validated(model: type[Model], body: Mapping[str, Any], *, opening: Opening | None = None) -> Model:
    """The body as a model. Raises RequestValidationError, without what was sent."""
    try:
        return model.model_validate(body, context=opening)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        for item in problems:
            item["loc"] = ("body", *item["loc"])
        raise RequestValidationError(problems) from None


def refused(field: str | None, message: str) -> RequestValidationError:
    """A validation error of our own about one field, or about the whole body."""
    place = ("body",) if field is None else ("body", field)
    return RequestValidationError([{"type": "value_error", "loc": place, "msg": message}])
