"""`/api/init`: how a dormant runtime learns whose it is.

The orchestrator first asks for a proof that this process holds the init key, because an address may have been given to
another container in the meantime, and then sends the configuration on the same connection, with a proof of its own over
all of it. So the key never travels, and what somebody in between has read of either proof is good for nothing: a
challenge is answered once, on the connection on which it was given. What that does, and what it does not do, is in
docs/adr/0018-init-on-one-connection.md.
"""

import re
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, Field, SecretStr, ValidationError, field_validator

from runtime.api.bodies import Body
from runtime.api.dependencies import StateDependency
from runtime.api.errors import server_error, stale_fence, without_input
from runtime.api.health import NESTOR
from runtime.connection import connection_of
from runtime.fence import BadFence, StaleFence, number
from runtime.settings import RuntimeSettings
from runtime.state import InitFailed, NotDormant, Stage
from runtime.webhooks.configuration import Webhooks

router = APIRouter(tags=["Init"])

LONGEST_NONCE = 256
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
NOT_DORMANT = "Runtime is not dormant: it was initialised already"
NO_CHALLENGE = (
    "no challenge is open on this connection: ask GET /api/init with X-Init-Nonce and answer on the same connection; "
    "each challenge is good for one answer"
)
NOT_PROVEN = "Unauthorized: X-Init-Proof is not the one for this challenge and this body"
PROOF_MISSING = "Unauthorized: X-Init-Proof is missing; this runtime has a boot key, which itself is never sent"
NOT_SERVED = "this runtime does not serve it: leave it out, or send it null or empty"


class InitBody(Body):
    """The part of the configuration that arrives at init. Unknown keys are refused; null means not given."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    session_api_keys: list[SecretStr] | None = None
    secret_key: SecretStr | None = None
    previous_secret_keys: list[SecretStr] | None = None
    conversations_path: Path | None = None
    bash_events_dir: Path | None = None
    conversation_worktree_root: Path | None = None
    web_url: str | None = None
    allow_cors_origins: list[str] | None = None
    max_concurrent_runs: Annotated[int, Field(ge=1)] | None = None
    public_urls: list[str] | None = None
    lookup_secret_hosts: list[str] | None = None
    allow_http_hosts: list[str] | None = None
    generation: int | None = None
    allow_set_conversation_id: bool | None = None
    webhooks: Webhooks | None = None
    env: dict[str, SecretStr] | None = Field(None, exclude=True)
    #: not of the contract: for callers' commands alone (`/api/bash`), with AGENT_SERVER_PORT beside them
    command_env: dict[str, SecretStr] | None = Field(None, exclude=True)
    telemetry: dict[str, Any] | None = Field(None, exclude=True)

    @field_validator("env", "command_env")
    @classmethod
    def _have_names(cls, env: dict[str, SecretStr] | None) -> dict[str, SecretStr] | None:
        for name in env or {}:
            if not VARIABLE.fullmatch(name):
                raise ValueError("names of variables are letters, digits and underscores, the first no digit")
            if name.startswith("OH_"):
                raise ValueError(f"{name} is this server's own: use the field of this body that it stands for")
        return env

    @field_validator("env")
    @classmethod
    def _for_the_agent(cls, env: dict[str, SecretStr] | None) -> dict[str, SecretStr] | None:
        if "SESSION_API_KEY" in (env or {}):
            # Setting it in the agent's environment would configure nothing and show a key to the agent.
            raise ValueError("SESSION_API_KEY is this server's own: give it in session_api_keys")
        return env

    @field_validator("telemetry")
    @classmethod
    def _not_served(cls, value: object) -> object:
        # Taking it and doing nothing would lose what the caller wants without a word.
        if value:
            raise ValueError(NOT_SERVED)
        return None

    def applied(self, settings: RuntimeSettings) -> RuntimeSettings:
        """These settings with the given fields replaced. Raises ValidationError."""
        given = {name: value for name, value in self.model_dump().items() if value is not None}
        if self.env:
            given["agent_variables"] = self.env
        if self.command_env:
            given["command_variables"] = self.command_env
        return RuntimeSettings.model_validate({**settings.model_dump(), **given})


async def _require_init_key(
    request: Request,
    state: StateDependency,
    x_init_api_key: Annotated[str | None, Header()] = None,
    x_init_proof: Annotated[str | None, Header()] = None,
) -> None:
    if state.stage is not Stage.DORMANT or state.init_key is None:
        raise HTTPException(400, NOT_DORMANT)
    if state.init_key.travels and x_init_proof is None:
        if not state.init_key.accepts(x_init_api_key):
            raise HTTPException(401, "Unauthorized")
        return
    challenge = connection_of(request.scope).take()  # used up by a wrong answer too
    if x_init_proof is None:
        raise HTTPException(401, PROOF_MISSING)
    if challenge is None:
        raise HTTPException(409, NO_CHALLENGE)
    if not state.init_key.accepts_proof(x_init_proof, challenge, await request.body()):
        raise HTTPException(401, NOT_PROVEN)


@router.get("/init")
async def get_init(
    request: Request, state: StateDependency, x_init_nonce: Annotated[str | None, Header()] = None
) -> JSONResponse:
    if state.init_key is None:
        raise HTTPException(404, "Not Found")
    answer: dict[str, Any] = {"state": state.stage.value, "error": _told(state.init_error)}
    if x_init_nonce is not None:
        if not 0 < len(x_init_nonce) <= LONGEST_NONCE:
            raise HTTPException(400, f"X-Init-Nonce must have 1 to {LONGEST_NONCE} characters")
        challenge = connection_of(request.scope).challenge(x_init_nonce)
        answer |= {"challenge": challenge.text, "proof": state.init_key.proof(challenge), "nestor": NESTOR}
    return JSONResponse(answer)


@router.post("/init", dependencies=[Depends(_require_init_key)])
async def post_init(
    state: StateDependency, body: InitBody, x_fence: Annotated[str | None, Header(include_in_schema=False)] = None
) -> JSONResponse:
    try:
        if x_fence is not None:
            number(x_fence)
        settings = body.applied(state.settings)
    except BadFence:
        raise HTTPException(400, "X-Fence must be a number") from None
    except ValidationError as exc:
        return JSONResponse({"detail": without_input(exc.errors(include_input=False))}, 422)
    if not (settings.session_api_keys or settings.allow_open or settings.listens_privately):
        raise HTTPException(422, "session_api_keys must hold at least one key: a runtime without keys is open to all")
    try:
        await state.initialize(settings, fence=x_fence)
    except StaleFence as exc:
        return stale_fence(exc)
    except NotDormant:
        raise HTTPException(400, NOT_DORMANT) from None
    except InitFailed as exc:
        return server_error(exc.error_id)
    return JSONResponse({"state": state.stage.value, "error": None})


def _told(error_id: str | None) -> str | None:
    return None if error_id is None else f"initialisation failed; the log has the reason under error_id {error_id}"
