"""Settings models as forms: what a client needs to draw one (contract 3.2). Made from the models themselves. Pure."""

from __future__ import annotations

from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

_TYPES: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", SecretStr: "string"}


def form_of(model: type[BaseModel]) -> dict[str, Any]:
    """SettingsSchema of the wire: a section for each nested model, and one for the fields of the model itself."""
    own: list[dict[str, Any]] = []
    sections: list[dict[str, Any]] = []
    for name, field in model.model_fields.items():
        nested = _model(field.annotation)
        if nested is None:
            own.append(_field(name, name, field, "general"))
            continue
        fields = [
            _field(f"{name}.{inner}", inner, inner_field, name) for inner, inner_field in nested.model_fields.items()
        ]
        sections.append({"key": name, "label": _label(name), "fields": fields, "variant": None})
    general = [{"key": "general", "label": "General", "fields": own, "variant": None}] if own else []
    return {"model_name": model.__name__, "sections": [*general, *sections]}


def _field(key: str, name: str, field: Any, section: str) -> dict[str, Any]:
    default = field.default if field.default is not PydanticUndefined else None
    choices = _choices(field.annotation)
    return {
        "key": key,
        "label": _label(name),
        "description": None,
        "section": section,
        "section_label": _label(section),
        "value_type": _type(field.annotation),
        "default": default if isinstance(default, str | int | float | bool | list | dict) else None,
        "prominence": "minor",
        "depends_on": [],
        "secret": _holds(field.annotation, SecretStr),
        "choices": [{"label": str(choice), "value": choice} for choice in choices],
        "variant": None,
    }


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _parts(annotation: Any) -> list[Any]:
    """The members of a union without None, metadata taken off."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return [part for one in get_args(annotation) if one is not type(None) for part in _parts(one)]
    if hasattr(annotation, "__metadata__"):
        return _parts(annotation.__origin__)
    return [annotation]


def _model(annotation: Any) -> type[BaseModel] | None:
    found = [one for one in _parts(annotation) if isinstance(one, type) and issubclass(one, BaseModel)]
    return found[0] if len(found) == 1 else None


def _type(annotation: Any) -> str:
    for one in _parts(annotation):
        origin = get_origin(one)
        if origin is Literal:
            return _TYPES.get(type(get_args(one)[0]), "string")
        if origin in (list, tuple, set):
            return "array"
        if one in _TYPES:
            return _TYPES[one]
    return "object"


def _choices(annotation: Any) -> list[Any]:
    return [value for one in _parts(annotation) if get_origin(one) is Literal for value in get_args(one)]


def _holds(annotation: Any, wanted: Any) -> bool:
    return any(one is wanted for one in _parts(annotation))
