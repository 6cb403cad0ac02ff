"""What all answers have in common."""

from typing import Annotated

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

#: `2026-01-02T03:04:05.678Z` (`domain/clock.py`)
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
#: what `If-Match` looks at
Version = Annotated[int, Field(description="Grows with each change")]
MISSING = "Null only in the place of one that was asked for by `ids` and is not there"
NextPage = Annotated[str | None, Field(description="The `page_id` of the next page; null: this is the last")]
NextAfter = Annotated[str | None, Field(description="The `after` of the next page; null: the end of what is there")]


class Answer(TypedDict):
    """An object of which every field is declared."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # pydantic's own way of saying it
