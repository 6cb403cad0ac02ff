"""What a JSON body may hold, whatever the route: values that can be stored, sent on and told again.

Called for every body before its fields are looked at. Python's parser takes more than JSON has: numbers without a
value, halves of characters, and nesting that later code, which descends into it, could not follow. NUL is JSON, but no
shell, environment or runtime takes it.
"""

import math
from typing import Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from orchestrator.domain.errors import InvalidRequest

MAXIMUM_DEPTH = 32


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "Input should be a number, not true or false")
    return value


#: The last that is said of a number of a body. To Python `true` is 1: a budget of one dollar that nobody asked for.
NO_TRUTH = BeforeValidator(_no_truth)


def check_json(value: Any) -> Any:
    """`value` as it came. Raises `InvalidRequest` naming the field that holds what cannot be kept."""
    waiting: list[tuple[str, int, Any]] = [("", 0, value)]
    while waiting:
        place, depth, item = waiting.pop()
        if isinstance(item, str):
            _check_text(item, place)
        elif isinstance(item, float) and not math.isfinite(item):
            raise InvalidRequest(f"{place}: this is not a number of JSON", field=place)
        elif isinstance(item, dict | list):
            if depth >= MAXIMUM_DEPTH:
                raise InvalidRequest(f"the body is nested deeper than {MAXIMUM_DEPTH} levels", hint="make it flatter")
            for name, below in item.items() if isinstance(item, dict) else enumerate(item):
                if isinstance(name, str):
                    _check_text(name, place)
                waiting.append((f"{place}.{name}" if place else str(name), depth + 1, below))
    return value


def _check_text(text: str, place: str) -> None:
    if "\0" in text:
        raise InvalidRequest(f"{place}: the text has a NUL character", field=place, hint="leave it out or encode it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            f"{place}: the text has half of a character", field=place, hint="send each surrogate with its other half"
        ) from None
