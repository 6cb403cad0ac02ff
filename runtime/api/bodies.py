"""Base of the request bodies that this package parses, and the checks that hold for all of them.

JSON admits what neither files, processes nor answers can hold: NUL, half a surrogate pair, NaN, and nesting without
end. It is refused here, once, with a validation error.
"""

import math
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from runtime.secrets.names import is_clean_text

DEEPEST = 32
#: in one request for events by their ids
MOST_IDS = 1000


class Body(BaseModel):
    """A request body; unknown keys are ignored unless the model says otherwise, and no error prints what was sent."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, value: Any) -> Any:
        check_json(value)
        return value


def check_json(value: object, *, depth: int = 0) -> None:
    """Raises ValueError when the value holds what cannot be stored or sent back."""
    if depth > DEEPEST:
        raise ValueError(f"nested more than {DEEPEST} levels deep")
    if isinstance(value, str) and not is_clean_text(value):
        raise ValueError("text must be valid Unicode without NUL characters")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("numbers must be finite")
    if isinstance(value, dict):
        for key, item in value.items():
            check_json(key, depth=depth)
            check_json(item, depth=depth + 1)
    if isinstance(value, list):
        for item in value:
            check_json(item, depth=depth + 1)
