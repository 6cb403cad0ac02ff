"""Environment variables as values, by the shape of a model (contract 1.4). Called by `settings`; reads nothing itself.

A field is the prefix and its name in upper case. Models nest with `_`, lists have an index or are JSON, anything may be
null with `<NAME>_IS_NONE=1`. Where a value is given as JSON and in parts, the parts win. A blank variable says nothing.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

_YES = frozenset({"1", "true"})
_LISTS = (list, tuple, set, frozenset)


class BadVariable(ValueError):
    """A variable is not what its field needs; the text names it and never holds its value."""


def fields(model: type[BaseModel], environment: Mapping[str, str], names: Mapping[str, str]) -> dict[str, Any]:
    """What the environment says about a model's fields; `names` gives the variable of each. Raises BadVariable."""
    found: dict[str, Any] = {}
    for field, variable in names.items():
        value = _value(model.model_fields[field].annotation, environment, variable)
        if value is not None:
            found[field] = value[0]
    return found


def merged(below: Any, above: Any) -> Any:
    """Objects field by field; of anything else the upper one."""
    if isinstance(below, Mapping) and isinstance(above, Mapping):
        return {**below, **{key: merged(below.get(key), value) for key, value in above.items()}}
    return above


def _value(annotation: Any, environment: Mapping[str, str], variable: str) -> tuple[Any] | None:
    """The value in a tuple of one, because null is a value too; None when the environment does not say."""
    if environment.get(f"{variable}_IS_NONE", "").strip().lower() in _YES:
        return (None,)
    for kind in _kinds(annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return _model(kind, environment, variable)
        origin = get_origin(kind) or kind
        if origin in _LISTS or origin is Sequence:
            return _list(next(iter(get_args(kind)), Any), environment, variable)
        if origin in (dict, Mapping):
            return _json(environment, variable, dict, "a JSON object")
    text = environment.get(variable)
    return None if text is None or not text.strip() else (text,)


def _kinds(annotation: Any) -> list[Any]:
    """What may stand there, without null and without the marks of validators."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for one in get_args(annotation) if one is not type(None) for kind in _kinds(one)]
    return [annotation]


def _model(model: type[BaseModel], environment: Mapping[str, str], variable: str) -> tuple[Any] | None:
    names = {name: f"{variable}_{name.upper()}" for name in model.model_fields}
    parts = fields(model, environment, names)
    for name in getattr(model, "older_fields", ()):  # of earlier releases; what they mean the model knows
        if text := environment.get(f"{variable}_{name.upper()}", "").strip():
            parts[name] = text
    whole = _json(environment, variable, dict, f"a JSON object, or use {variable}_<FIELD>")
    if whole is None:
        return (parts,) if parts else None
    return (merged(whole[0], parts),)


def _list(item: Any, environment: Mapping[str, str], variable: str) -> tuple[Any] | None:
    prefix = f"{variable}_"
    numbers = {number for name in environment if (number := _index(name, prefix)) is not None}
    found = [value[0] for number in sorted(numbers) if (value := _value(item, environment, f"{prefix}{number}"))]
    if found:
        return (found,)
    return _json(environment, variable, list, f"a JSON list, or use {variable}_0, {variable}_1, ...")


def _index(name: str, prefix: str) -> int | None:
    """The number behind the prefix: of the item itself, or of a part of it."""
    if not name.startswith(prefix):
        return None
    digits = name[len(prefix) :].partition("_")[0]
    canonical = digits.isascii() and digits.isdigit() and len(digits) < 10 and str(int(digits)) == digits
    return int(digits) if canonical else None


def _json(environment: Mapping[str, str], variable: str, kind: type, wanted: str) -> tuple[Any] | None:
    text = environment.get(variable, "")
    if not text.strip():
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise BadVariable(f"{variable} must be {wanted}")
    return (value,)
