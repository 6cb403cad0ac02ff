"""Who may call: the key of the operator, tokens of another issuer."""

import re
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from orchestrator.domain.tenancy import Scope
from orchestrator.options.base import Settings, listed

_HOST = re.compile(r"[^\s/@]+")


class CallerSettings(Settings):
    """Who may call: the key of the operator, tokens of another issuer."""

    operator_key: SecretStr | None = None
    """The operator's API key, any text of 32 or more characters. Without it one is made at the first start."""
    jwt_keys: str | None = None
    """Where the keys are that tokens (JWT) of your own issuer are checked by: the address of its key set (JWKS), or the
    path of a file that holds one. https, or plain http on loopback and to `NESTOR_ALLOW_HTTP_HOSTS`. Without it no
    tokens are taken, only API keys."""
    jwt_issuer: str | None = None
    """The `iss` that a token has to have, to the letter. Needed with `NESTOR_JWT_KEYS`."""
    jwt_audience: str | None = None
    """What the `aud` of a token has to be or to hold. Needed with `NESTOR_JWT_KEYS`, because an issuer makes tokens for
    other programs as well."""
    jwt_tenant_claim: str = "tenant"
    """The claim with the id of the tenant."""
    jwt_user_claim: str = "sub"
    """The claim with the user of that tenant: its `external_id`, or its id. Empty: tokens speak for the whole tenant,
    as its own keys do."""
    jwt_scopes_claim: str = "scope"
    """The claim with scopes, as text with spaces between or as a list. What is no scope of Nestor's is passed over."""
    jwt_default_scopes: str = "read,write"
    """Comma list of the scopes of a token that has no such claim. Without `secrets:reveal`, which has to be named."""
    jwt_makes_users: bool = False
    """Make the user whom a token names when it is seen for the first time. Off, because a tenant's backend mostly makes
    its users."""
    jwt_leeway_seconds: int = Field(default=30, ge=0, le=300)
    """How far the issuer's clock may be from this one."""
    jwt_longest_seconds: int = Field(default=86_400, ge=60, le=31_536_000)
    """The longest that a token may be good for; one that is good for longer is refused. A day, because a token cannot
    be revoked by itself."""
    jwt_keys_seconds: int = Field(default=300, ge=10, le=86_400)
    """After so many seconds the keys are fetched again; at once when a token names one that is not known, at most every
    ten seconds."""
    jwt_keys_kept_seconds: int = Field(default=3600, ge=0, le=604_800)
    """For so many seconds more the last keys are good while new ones cannot be fetched."""

    @field_validator("operator_key")
    @classmethod
    def _long_enough(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(key.get_secret_value()) < 32:
            raise ValueError("must have 32 or more characters")
        return key

    @field_validator("jwt_default_scopes")
    @classmethod
    def _scopes(cls, text: str) -> str:
        for scope in sorted(listed(text) - set(Scope)):
            raise ValueError(f"{scope[:60]!r} is no scope; there are {', '.join(Scope)}")
        return text

    @model_validator(mode="after")
    def _jwt(self) -> Self:
        named = {name for name in self.model_fields_set if name.startswith("jwt_")}
        needed = ("jwt_keys", "jwt_issuer", "jwt_audience")
        missing = [f"NESTOR_{name.upper()}" for name in needed if not getattr(self, name)]
        if named and missing:
            raise ValueError(
                f"{', '.join(missing)}: needed where tokens are taken; leave out all of NESTOR_JWT_ or none"
            )
        if not self.jwt_tenant_claim or not self.jwt_scopes_claim:
            raise ValueError("NESTOR_JWT_TENANT_CLAIM and NESTOR_JWT_SCOPES_CLAIM: they name claims, and are not empty")
        return self

    @property
    def jwt_scopes(self) -> frozenset[str]:
        return listed(self.jwt_default_scopes)
