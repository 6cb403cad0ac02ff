"""What routes ask of the request before they do anything: the runtime's state, and the right to be here.

Every router uses these; `runtime.api.gate` checks the same key earlier, before a body is read, and this check stands
behind it so that no route depends on the middleware alone.
"""

from typing import Annotated

from fastapi import Depends, HTTPException, Security
from fastapi.requests import HTTPConnection
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from runtime.state import RuntimeState

KEY_HEADER = "X-Session-API-Key"
_key_header = APIKeyHeader(name=KEY_HEADER, auto_error=False)
_bearer = HTTPBearer(auto_error=False)


# Both are coroutines although they wait for nothing: a plain function would cost two hops between threads a request.


async def runtime_state(connection: HTTPConnection) -> RuntimeState:
    """The state of this application, for HTTP and WebSocket routes."""
    state: RuntimeState = connection.app.state.runtime
    return state


StateDependency = Annotated[RuntimeState, Depends(runtime_state)]


async def require_session_key(state: StateDependency, key: Annotated[str | None, Security(_key_header)] = None) -> None:
    """Let the request pass with a session key, or when none is configured; else 401."""
    if not state.session_keys.accepts(key):
        raise HTTPException(401, "Unauthorized")


async def require_bearer_or_session_key(
    state: StateDependency,
    key: Annotated[str | None, Security(_key_header)] = None,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
) -> None:
    """The same for clients that can only send a key as a bearer token; else 401."""
    if not state.session_keys.accepts(key) and not state.session_keys.accepts(bearer.credentials if bearer else None):
        raise HTTPException(401, "Unauthorized")


def bearer_of(authorization: str | None) -> str | None:
    """The token of an Authorization header; None when it is of another kind."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
