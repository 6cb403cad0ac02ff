"""`/api/settings/secrets`: the newer secret routes.

The only route of the runtime that answers a secret's value is the read of one name, as plain text, because the
contract's LookupSecret is that read. The older routes are in `runtime.api.older`.
"""

from fastapi import APIRouter, HTTPException
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import SecretStr

from runtime.api.bodies import Body
from runtime.api.dependencies import StateDependency
from runtime.secrets.names import InvalidSecret, check_name, check_value
from runtime.secrets.store import SecretNotFound

router = APIRouter(prefix="/settings/secrets", tags=["Settings"])

NOT_FOUND = "Secret not found"


class SecretBody(Body):
    """A secret to create or replace."""

    name: str
    value: SecretStr
    description: str | None = None


@router.get("")
async def list_secrets(state: StateDependency) -> JSONResponse:
    entries = state.secret_store.entries()
    return JSONResponse({"secrets": [{"name": entry.name, "description": entry.description} for entry in entries]})


@router.put("")
def put_secret(state: StateDependency, body: SecretBody) -> JSONResponse:
    try:
        check_name(body.name)
        check_value(body.value.get_secret_value())
    except InvalidSecret as exc:
        raise HTTPException(422, str(exc)) from None
    state.secret_store.put(body.name, body.value, description=body.description)
    return JSONResponse({"name": body.name, "description": body.description})


@router.get("/{name}")
async def get_secret(state: StateDependency, name: str) -> PlainTextResponse:
    value = state.secret_store.get(_checked(name))
    if value is None:
        raise HTTPException(404, NOT_FOUND)
    return PlainTextResponse(value.get_secret_value(), headers={"Cache-Control": "no-store"})


@router.delete("/{name}")
def delete_secret(state: StateDependency, name: str) -> JSONResponse:
    try:
        state.secret_store.delete(_checked(name))
    except SecretNotFound:
        raise HTTPException(404, NOT_FOUND) from None
    return JSONResponse({"deleted": True})


def _checked(name: str) -> str:
    try:
        return check_name(name)
    except InvalidSecret as exc:
        raise HTTPException(422, str(exc)) from None
