"""What a runtime said may hold what it was told. Before its words are stored or shown, every value that went into it is
taken out: the values of the conversation's bundle and its keys, beside whatever has the shape of a token."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.domain.conversation import Conversation, Why
from orchestrator.domain.errors import StoreUnavailable, Undecryptable
from orchestrator.domain.secrets import SecretText
from orchestrator.domain.settings import wrap_secrets
from orchestrator.drivers.printed import CUT, LINE_CHARACTERS
from orchestrator.security.redaction import Redactor
from orchestrator.services.effective import Effective
from orchestrator.services.keys import KeyRing


async def discreet(why: Why, conversation: Conversation, effective: Effective, keys: KeyRing) -> Why:
    """`why` without any value that this conversation's runtime was given. Where the values cannot be opened to be
    looked for, the runtime's last lines are left out."""
    redactor = await _knowing(conversation, effective, keys)
    if redactor is None:
        return replace(why, message=Redactor().text(why.message), log_tail=())
    return replace(
        why, message=redactor.text(why.message), log_tail=tuple(_line(redactor, line) for line in why.log_tail)
    )


async def discreet_lines(
    lines: Sequence[str], conversation: Conversation, effective: Effective, keys: KeyRing
) -> Sequence[str]:
    """As `discreet`, of lines alone."""
    redactor = await _knowing(conversation, effective, keys)
    return [] if redactor is None else [_line(redactor, line) for line in lines]


def _line(redactor: Redactor, line: str) -> str:
    if len(line) < LINE_CHARACTERS or not line.endswith(CUT):
        return redactor.text(line)
    return redactor.text(line.removesuffix(CUT), is_cut=True) + CUT


async def _knowing(conversation: Conversation, effective: Effective, keys: KeyRing) -> Redactor | None:
    """One that knows every value that the runtime was given; None where they cannot be opened."""
    redactor = Redactor()
    try:
        bundle = await effective.bundle(conversation.tenant, conversation.user, own=conversation)
        brought = await effective.brought(conversation)
        own = [await keys.session_key(conversation), await keys.inner_key(conversation)]
    except (Undecryptable, StoreUnavailable):
        return None
    redactor.add([*bundle.secrets.values(), *(provider.token for provider in bundle.providers)])
    redactor.add(brought.environment.values())
    if brought.start_body is not None:
        redactor.add(_secrets_in_body(json.loads(brought.start_body.open())))
    redactor.add([*_secrets_in(bundle.settings), *(key for key in own if key is not None)])
    return redactor


def _secrets_in_body(body: Mapping[str, Any]) -> Iterator[SecretText]:
    """Of a client's own start body: what its fields' names say is secret, and all that stands in its `secrets`."""
    yield from _secrets_in(wrap_secrets(dict(body)))
    secrets = body.get("secrets")
    for item in secrets.values() if isinstance(secrets, Mapping) else ():
        value = item.get("value") if isinstance(item, Mapping) else item
        if isinstance(value, str) and value:
            yield SecretText(value)


def _secrets_in(value: Any) -> Iterator[SecretText]:
    if isinstance(value, SecretText):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _secrets_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _secrets_in(item)
