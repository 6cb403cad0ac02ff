"""The older flat settings record, translated into the newer one and back.

`POST /api/settings` of the older orchestrators speaks flat fields (contract nested-config.md 3 and 9). Those that the
newer record has are moved there and live there alone; the rest is kept in `SettingsRecord.older`. Pure.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from runtime.configuration.record import Address, ConversationSettings, OlderSettings, Positive, SettingsRecord
from runtime.secrets.providers import GitProvider
from runtime.store.exposure import OptionalSecret

#: flat field -> field of `conversation_settings`
CONVERSATION_FIELDS = ("max_iterations", "confirmation_mode", "security_analyzer")


class FlatFields(OlderSettings):
    """The flat fields that have another shape on the wire than in the store, beside those that do not."""

    llm_model: str | None = None
    llm_api_key: OptionalSecret = None
    llm_base_url: Address = None
    mcp_config: dict[str, Any] | None = None  # type: ignore[assignment]  # an object on the wire, sealed text when kept
    max_iterations: Positive | None = None


def translated(record: SettingsRecord, flat: FlatFields) -> SettingsRecord:
    """A new record with the flat fields in it.

    The flat record is replaced as a whole, except that an absent model, model key, base url, search key or consent
    keeps what is stored. A conversation default that the last flat record set and this one lacks is the default again.
    """
    last = record.older or OlderSettings()
    older = OlderSettings.model_construct(
        **{name: getattr(flat, name) for name in OlderSettings.model_fields if name != "mcp_config"},
        mcp_config=_sealed_text(flat.mcp_config),
    )
    older.search_api_key = flat.search_api_key or last.search_api_key
    if flat.user_consents_to_analytics is None:
        older.user_consents_to_analytics = last.user_consents_to_analytics
    agent_settings = record.agent_settings.model_copy(
        update={"llm": record.agent_settings.llm.model_copy(update=_llm(flat)), **_agent(record, flat, last)}
    )
    return record.model_copy(
        update={
            "agent_settings": agent_settings,
            "conversation_settings": record.conversation_settings.model_copy(update=_conversation(flat, last)),
            "older": older,
        }
    )


def _llm(flat: FlatFields) -> dict[str, Any]:
    update: dict[str, Any] = {}
    if flat.llm_model:
        update["model"] = flat.llm_model
    if flat.llm_api_key is not None:
        update["api_key"] = flat.llm_api_key
    if flat.llm_base_url is not None:
        update["base_url"] = flat.llm_base_url.strip() or None
    return update


def _agent(record: SettingsRecord, flat: FlatFields, last: OlderSettings) -> dict[str, Any]:
    if flat.agent is None and last.agent is None:
        return {}
    return {"agent": flat.agent or type(record.agent_settings).model_fields["agent"].default}


def _conversation(flat: FlatFields, last: OlderSettings) -> dict[str, Any]:
    defaults = ConversationSettings()
    update: dict[str, Any] = {}
    for name in CONVERSATION_FIELDS:
        given = getattr(flat, name)
        if given is not None:
            update[name] = given
        elif getattr(last, name) is not None:
            update[name] = getattr(defaults, name)
    return update


def _sealed_text(value: Mapping[str, Any] | None) -> SecretStr | None:
    return None if value is None else SecretStr(json.dumps(value))


def flat_fields(record: SettingsRecord, providers: Mapping[str, GitProvider]) -> dict[str, Any]:
    """What an older client expects beside the newer fields of `GET /api/settings`: no key is ever in it.

    Empty until an older client stored its record.
    """
    older = record.older
    if older is None:
        return {}
    llm = record.agent_settings.llm
    kept = older.model_dump(exclude={"search_api_key", "sandbox_api_key", "mcp_config"})
    return {
        **kept,
        **{name: getattr(record.conversation_settings, name) for name in CONVERSATION_FIELDS},
        "agent": record.agent_settings.agent,
        "llm_model": llm.model,
        "llm_base_url": llm.base_url,
        "llm_api_key": None,
        "search_api_key": None,
        "sandbox_api_key": None,
        "llm_api_key_set": llm.api_key is not None,
        "search_api_key_set": older.search_api_key is not None,
        "provider_tokens_set": {name: item.host for name, item in providers.items() if item.token is not None},
    }
