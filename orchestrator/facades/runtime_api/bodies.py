"""What the runtime API is sent. Unknown fields are passed over, as its clients expect."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

#: A server of one generation sends an argument list.
_Command = str | list[str]
_Texts = Annotated[dict[str, str], BeforeValidator(lambda value: {} if value is None else value)]


def _readable(session: str) -> str:
    """One that `GET /sessions/{session_id}` can name."""
    if not session.isprintable() or session == "batch":
        raise ValueError("a session id has printable characters, and is not `batch`")
    return session


class StartBody(BaseModel):
    """`working_dir`, `command`, `runtime_class`, users, groups and the pull policy are the operator's to decide here;
    what was sent of them has no effect."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    image: Annotated[str, Field(max_length=500)] | None = None
    command: _Command | None = None
    environment: _Texts = {}
    session_id: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_readable)] | None = None
    resource_factor: Annotated[int, Field(ge=1, le=64)] | None = None


class RuntimeBody(BaseModel):
    """Which one."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    runtime_id: Annotated[str, Field(max_length=200)]
