"""`POST /api/settings/digests`: whether what was pushed is still there, for the holder of this runtime's conversation.

Our own route, beside the contract. It reads; names go in the body because there may be many. No client has a fence, and
the orchestrator lets none through, so that nobody tries values by storing them and comparing digests.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Header, HTTPException
from fastapi.responses import JSONResponse
from pydantic import Field

from runtime.api.bodies import Body
from runtime.api.dependencies import StateDependency
from runtime.configuration.digests import at_pointers, digest, of_providers
from runtime.store.exposure import Exposure, render

router = APIRouter(prefix="/settings/digests", tags=["Settings"])
Names = Annotated[tuple[Annotated[str, Field(max_length=1000)], ...], Field(max_length=5000)]


class DigestsBody(Body):
    """What to look at: JSON pointers into the settings record, names of git providers and of secrets."""

    settings: Names = ()
    git_providers: Names = ()
    secrets: Names = ()


@router.post("")
async def digests(
    state: StateDependency, body: DigestsBody, x_fence: Annotated[str | None, Header()] = None
) -> JSONResponse:
    """One keyed digest for each of the three, over what is stored under these names now."""
    key = state.session_keys.digest_key()
    if x_fence is None or key is None:
        raise HTTPException(403, "Only the holder of a fence, under a session key, is told digests")
    record: dict[str, Any] = render(state.settings_store.read(), Exposure.PLAINTEXT, state.cipher)
    values = [(name, state.secret_store.get(name)) for name in sorted(set(body.secrets))]
    secrets = [[name, value.get_secret_value() if value is not None else None] for name, value in values]
    return JSONResponse(
        {
            "settings": digest(key, "settings", at_pointers(record, body.settings)),
            "git_providers": digest(key, "git_providers", of_providers(state.git_providers.all(), body.git_providers)),
            "secrets": digest(key, "secrets", secrets),
        },
        headers={"Cache-Control": "no-store"},
    )
