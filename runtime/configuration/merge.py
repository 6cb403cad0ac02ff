"""How a partial change becomes a new settings record.

Pure: the settings route gives a record and a change and gets a new record, or an error that names the fields. Objects
merge, everything else replaces; a null deletes an entry of a free map and is an ordinary value for a model's field.
A secret that comes back as the mask or blank is left as it is, because that is all a client saw of it.
"""

from collections.abc import Mapping
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError

from runtime.configuration.record import SettingsRecord
from runtime.store.cipher import Cipher
from runtime.store.exposure import MASK, Opening, is_blank_or_mask

Model = TypeVar("Model", bound=BaseModel)
FREE_MAP: Any = dict[str, Any]


class SettingsInvalid(Exception):
    """The change does not fit; `problems` names each field and what is wrong with it, never the value."""

    def __init__(self, problems: list[dict[str, Any]]) -> None:
        super().__init__("Settings validation failed")
        self.problems = problems


def merged(record: Model, change: Mapping[str, Any], cipher: Cipher) -> Model:
    """A new record: this one with the change in it. Tokens of the cipher are opened. Raises SettingsInvalid."""
    values = _merge(type(record), record.model_dump(), change)
    try:
        return type(record).model_validate(values, context=Opening(cipher))
    except ValidationError as exc:
        problems = exc.errors(include_input=False, include_context=False, include_url=False)
        raise SettingsInvalid([{"loc": list(item["loc"]), "msg": item["msg"]} for item in problems]) from None


def with_diffs(
    record: SettingsRecord, agent: Mapping[str, Any] | None, conversation: Mapping[str, Any] | None, cipher: Cipher
) -> SettingsRecord:
    """The record with these changes of its two largest parts. Raises SettingsInvalid."""
    changes: dict[str, Any] = {}
    if agent is not None:
        changes["agent_settings"] = merged(record.agent_settings, agent, cipher)
    if conversation is not None:
        changes["conversation_settings"] = merged(record.conversation_settings, conversation, cipher)
    return record.model_copy(update=changes)


def merged_map(current: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """The free map with the change in it, where null deletes."""
    result: dict[str, Any] = _merge(FREE_MAP, current, change)
    return result


def unmasked(current: object, given: object) -> Any:
    """What replaces `current`, with its secrets where only the mask of them was sent: all that a client saw of them."""
    if isinstance(given, Mapping):
        known = dict(current) if isinstance(current, Mapping | BaseModel) else {}
        return {name: unmasked(known.get(name), value) for name, value in given.items()}
    return current if given == MASK and isinstance(current, SecretStr) else given


def _merge(shape: Any, current: object, change: object) -> Any:
    if not isinstance(change, Mapping):
        return current if _keeps(current, change) else change
    base = dict(current) if isinstance(current, Mapping) else {}
    model = _model_of(shape)
    if model is not None:
        fields = model.model_fields
        known = {name: value for name, value in change.items() if name in fields}
        return {**base, **{name: _merge(fields[name].annotation, base.get(name), known[name]) for name in known}}
    for name, value in change.items():
        if value is None:
            base.pop(name, None)
        else:
            base[name] = _merge(_item_of(shape), base.get(name), value)
    return base


def _keeps(current: object, change: object) -> bool:
    return isinstance(current, SecretStr) and isinstance(change, str) and is_blank_or_mask(change)


def _members(shape: Any) -> tuple[Any, ...]:
    return get_args(shape) if get_origin(shape) in {Union, UnionType} else (shape,)


def _model_of(shape: Any) -> type[BaseModel] | None:
    return next((part for part in _members(shape) if isinstance(part, type) and issubclass(part, BaseModel)), None)


def _item_of(shape: Any) -> Any:
    """What a free map's values are, so that a model inside a map (an MCP server) merges as a model."""
    return next((get_args(part)[1] for part in _members(_plain(shape)) if get_origin(part) is dict), FREE_MAP)


def _plain(shape: Any) -> Any:
    # Annotated[dict[...], validator] is a dict too.
    return get_args(shape)[0] if hasattr(shape, "__metadata__") else shape
