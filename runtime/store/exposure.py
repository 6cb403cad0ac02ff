"""How a record with secrets goes out and comes in: hidden, in clear, or as tokens.

`render` is the only way a record leaves memory, for an answer or for a file; `Opening` is what a validation needs to
take tokens back. Both halves of the runtime use them, so that no route or store has rules of its own. It knows
nothing of which records exist.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, SecretStr, TypeAdapter, ValidationInfo

from runtime.store.cipher import Cipher, EncryptionUnavailable, Undecryptable

MASK = "**********"
_JSON: TypeAdapter[Any] = TypeAdapter(Any)


class Exposure(enum.StrEnum):
    """What stands in the place of a secret."""

    REDACTED = "redacted"  #: ten asterisks when set, null when not
    PLAINTEXT = "plaintext"  #: the value, for a key holder who asked for it
    ENCRYPTED = "encrypted"  #: a fresh token; raises EncryptionUnavailable without a key
    WITHHELD = "withheld"  #: nothing: null, or no entry in a map. For files when there is no key to seal with


def render(model: BaseModel, exposure: Exposure, cipher: Cipher) -> dict[str, Any]:
    """The record as JSON values, every secret in it shown as asked. Raises EncryptionUnavailable for ENCRYPTED only."""
    names = [*type(model).model_fields, *type(model).model_computed_fields]
    hidden = {name for name, field in type(model).model_fields.items() if field.exclude}
    shown = {name: _render(getattr(model, name), exposure, cipher) for name in names if name not in hidden}
    omitted: frozenset[str] = getattr(type(model), "omitted_when_null", frozenset())
    return {name: value for name, value in shown.items() if value is not None or name not in omitted}


def _render(value: object, exposure: Exposure, cipher: Cipher) -> Any:
    if isinstance(value, SecretStr):
        return _show(value, exposure, cipher)
    if isinstance(value, BaseModel):
        return render(value, exposure, cipher)
    if isinstance(value, Mapping):
        shown = {key: _render(item, exposure, cipher) for key, item in value.items()}
        withheld = {key for key, item in value.items() if isinstance(item, SecretStr) and shown[key] is None}
        return {key: item for key, item in shown.items() if key not in withheld}
    if isinstance(value, list | tuple):
        return [_render(item, exposure, cipher) for item in value]
    return _JSON.dump_python(value, mode="json")


def _show(secret: SecretStr, exposure: Exposure, cipher: Cipher) -> str | None:
    match exposure:
        case Exposure.REDACTED:
            return MASK
        case Exposure.PLAINTEXT:
            return secret.get_secret_value()
        case Exposure.ENCRYPTED:
            return cipher.encrypt(secret.get_secret_value())
        case Exposure.WITHHELD:
            return None


@dataclass
class Opening:
    """Validation context that decrypts tokens: `Model.model_validate(data, context=Opening(cipher))`.

    From the wire (`stored=False`) an unreadable token is a validation error. From a file (`stored=True`) it reads as
    unset and is counted, so that the store can say so and refuse to write over it; `stale` counts the values that the
    current key should seal anew.
    """

    cipher: Cipher
    stored: bool = False
    unreadable: int = 0
    stale: int = 0

    def open(self, text: str) -> SecretStr | None:
        if not Cipher.looks_encrypted(text):
            self.stale += 1
            return SecretStr(text)
        try:
            opened = self.cipher.decrypt(text)
        except (Undecryptable, EncryptionUnavailable):
            if not self.stored:
                # Never taken as if the token were the value: it would be sent to a model's server as a key.
                raise ValueError("this encrypted value cannot be decrypted with the server's secret key") from None
            self.unreadable += 1
            return None
        if not self.cipher.is_current(text):
            self.stale += 1
        return SecretStr(opened)


def is_stored(info: ValidationInfo) -> bool:
    """Whether what is validated comes from a file of ours: what was taken once is never refused when it is read."""
    return isinstance(info.context, Opening) and info.context.stored


def is_blank_or_mask(text: str) -> bool:
    """Whether a secret's text says nothing: what a client sends back that only ever saw the redacted form."""
    return not text.strip() or text == MASK


def _opened(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str):
        return value
    if is_blank_or_mask(value):
        return None
    if isinstance(info.context, Opening):
        return info.context.open(value)
    return SecretStr(value)


def _opened_map(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, Mapping):
        return value
    opened = {key: item if item == "" else _opened(item, info) for key, item in value.items()}
    # An unreadable or masked entry has no value to keep; a null stays, for validation to refuse.
    return {key: item for key, item in opened.items() if item is not None or value[key] is None}


#: A secret that may be unset. Blank text and the mask mean unset.
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(_opened)]
#: A map whose values are secrets, such as HTTP headers or a process environment.
SecretMap = Annotated[dict[str, SecretStr], BeforeValidator(_opened_map)]
