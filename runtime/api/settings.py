"""`GET` and `PATCH /api/settings`: the newer, nested record.

The older flat form of the same path is in `runtime.api.older`. Every answer of a change is redacted, whatever the
request asked for.
"""

from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, HTTPException, Path
from fastapi.responses import JSONResponse
from pydantic import Field

from runtime.api.bodies import Body
from runtime.api.dependencies import StateDependency
from runtime.api.parsing import validated
from runtime.api.threads import in_thread
from runtime.configuration.merge import SettingsInvalid, merged_map, with_diffs
from runtime.configuration.older import flat_fields
from runtime.configuration.record import SettingsRecord
from runtime.state import RuntimeState
from runtime.store.cipher import Cipher, EncryptionUnavailable
from runtime.store.exposure import Exposure, render

log = structlog.get_logger()
router = APIRouter(tags=["Settings"])
#: of what every start asks for (`app.STARTING`)
starting = APIRouter(tags=["Settings"])

ProfileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
McpKey = Annotated[str, Path(min_length=1, max_length=200)]
ProfileId = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]

EXPOSURES = {
    "": Exposure.REDACTED,
    "plaintext": Exposure.PLAINTEXT,
    "encrypted": Exposure.ENCRYPTED,
    "true": Exposure.ENCRYPTED,  # the header's older form
}
NOTHING_GIVEN = (
    "At least one of agent_settings_diff, conversation_settings_diff, misc_settings_diff, active_profile, "
    "active_agent_profile_id, or active_meta_profile must be provided"
)


class SettingsUpdate(Body):
    """A partial change. The active_* fields count when they are present, so that null clears."""

    agent_settings_diff: dict[str, Any] | None = None
    conversation_settings_diff: dict[str, Any] | None = None
    misc_settings_diff: dict[str, Any] | None = None
    active_profile: ProfileName | None = None
    active_agent_profile_id: ProfileId | None = None
    active_meta_profile: ProfileName | None = None

    @property
    def cleared(self) -> set[str]:
        """The active_* fields that the request names."""
        return {name for name in self.model_fields_set if name.startswith("active_")}

    @property
    def empty(self) -> bool:
        diffs = (self.agent_settings_diff, self.conversation_settings_diff, self.misc_settings_diff)
        return not self.cleared and all(diff is None for diff in diffs)


def requested_exposure(state: RuntimeState, header: str | None) -> Exposure:
    """What X-Expose-Secrets asks for. Raises 400 for any other value; EncryptionUnavailable where tokens are asked for
    and there is no key, also when nothing is stored that would be one."""
    asked = (header or "").strip()
    if asked.lower() not in EXPOSURES:
        raise HTTPException(
            400,
            f"Invalid X-Expose-Secrets header value: {asked[:64]!r}. Valid values are: 'encrypted', 'plaintext'.",
        )
    exposure = EXPOSURES[asked.lower()]
    if exposure is Exposure.ENCRYPTED and not state.cipher.available:
        raise EncryptionUnavailable
    return exposure


def settings_answer(state: RuntimeState, record: SettingsRecord, exposure: Exposure) -> JSONResponse:
    """The record as the wire shows it. Raises EncryptionUnavailable for the encrypted exposure without a key.

    Depends on the record alone, and on the git providers for an older one: `runtime.api.hot` keeps the redacted form.
    """
    shown = render(record, exposure, state.cipher)
    del shown["older"]
    shown["llm_api_key_is_set"] = record.agent_settings.llm.api_key is not None
    # An older client's fields never take a newer one's place.
    body = {**flat_fields(record, state.git_providers.all()), **shown}
    return JSONResponse(body, headers={"Cache-Control": "no-store"})


@starting.get("/settings")
async def get_settings(
    state: StateDependency, x_expose_secrets: Annotated[str | None, Header()] = None
) -> JSONResponse:
    exposure = requested_exposure(state, x_expose_secrets)
    if exposure is Exposure.PLAINTEXT:
        log.warning("settings.exposed", form=exposure)
    return settings_answer(state, state.settings_store.read(), exposure)


@starting.patch("/settings")
@in_thread
def patch_settings(state: StateDependency, update: SettingsUpdate) -> JSONResponse:
    if update.empty:
        raise HTTPException(400, NOTHING_GIVEN)
    _refuse_unknown_profiles(state, update)
    try:
        changed = state.settings_store.change(
            lambda record: _changed(_with_profile(state, record, update), update, state.cipher)
        )
    except SettingsInvalid as exc:
        # `detail` is the contract's; `errors` says which field, for whoever has to mend the request.
        return JSONResponse({"detail": str(exc), "errors": exc.problems}, 422)
    return settings_answer(state, changed, Exposure.REDACTED)


def _refuse_unknown_profiles(state: RuntimeState, update: SettingsUpdate) -> None:
    """Agent profiles and meta profiles do not exist here, so each of their names is unknown and can only be cleared."""
    if update.active_profile is not None and update.active_profile not in state.profiles.all():
        raise HTTPException(404, f"Profile '{update.active_profile}' not found")
    id = update.active_agent_profile_id
    if id is not None and all(str(profile.id) != id for profile in state.agent_profiles.all().values()):
        raise HTTPException(404, f"Agent profile '{id}' not found")
    if update.active_meta_profile is not None:
        raise HTTPException(404, f"Meta profile '{update.active_meta_profile}' not found")


def _changed(record: SettingsRecord, update: SettingsUpdate, cipher: Cipher) -> SettingsRecord:
    changes: dict[str, Any] = {name: getattr(update, name) for name in update.cleared}
    if update.misc_settings_diff is not None:
        changes["misc_settings"] = merged_map(record.misc_settings, update.misc_settings_diff)
    diffs = (update.agent_settings_diff, update.conversation_settings_diff)
    return with_diffs(record.model_copy(update=changes), *diffs, cipher)


def _with_profile(state: RuntimeState, record: SettingsRecord, update: SettingsUpdate) -> SettingsRecord:
    """The profile that becomes the active one brings its model, unless the request brings one."""
    if update.active_profile is None or "llm" in (update.agent_settings_diff or {}):
        return record
    agent_settings = record.agent_settings.model_copy(update={"llm": state.profiles.get(update.active_profile)})
    return record.model_copy(update={"agent_settings": agent_settings})


@router.post("/settings/mcp/{settings_key}")
def add_mcp_server(state: StateDependency, settings_key: McpKey, server: dict[str, Any]) -> JSONResponse:
    """A new MCP server in the settings: 409 when the name is taken."""
    return _mcp(state, settings_key, server, exists=False, status=201)


@router.patch("/settings/mcp/{settings_key}")
def change_mcp_server(state: StateDependency, settings_key: McpKey, server: dict[str, Any]) -> JSONResponse:
    """Change one: 404 when there is none."""
    return _mcp(state, settings_key, server, exists=True)


@router.delete("/settings/mcp/{settings_key}")
def remove_mcp_server(state: StateDependency, settings_key: McpKey) -> JSONResponse:
    return _mcp(state, settings_key, None, exists=True)


def _mcp(
    state: RuntimeState, key: str, server: dict[str, Any] | None, *, exists: bool, status: int = 200
) -> JSONResponse:
    update = validated(SettingsUpdate, {"agent_settings_diff": {"mcp_config": {key: server}}})

    def change(record: SettingsRecord) -> SettingsRecord:
        if (key in record.agent_settings.mcp_config) is not exists:
            if exists:
                raise HTTPException(404, f"MCP server '{key[:80]}' not found")
            raise HTTPException(409, f"MCP server '{key[:80]}' already exists")
        return _changed(record, update, state.cipher)

    try:
        changed = state.settings_store.change(change)
    except SettingsInvalid as exc:
        return JSONResponse({"detail": str(exc), "errors": exc.problems}, 422)
    answer = settings_answer(state, changed, Exposure.REDACTED)
    answer.status_code = status
    return answer
