"""When the agent has to ask before it acts: confirmation policies, and analyzers that judge risk (contract 4.1, 4.4).

Used by the start request, the two routes that change them, and the run. Pure. Only the analyzer that takes the model's
own word is available; the kinds that call other services or look for patterns are refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from runtime.events.models import Risk

_ORDER: tuple[Risk, ...] = ("LOW", "MEDIUM", "HIGH")


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class NeverConfirm(_Closed):
    kind: Literal["NeverConfirm"]

    def asks(self, risk: Risk) -> bool:
        return False


class AlwaysConfirm(_Closed):
    kind: Literal["AlwaysConfirm"]

    def asks(self, risk: Risk) -> bool:
        return True


class ConfirmRisky(_Closed):
    """Ask from `threshold` on; `confirm_unknown` says what an act is worth that nobody judged."""

    kind: Literal["ConfirmRisky"]
    threshold: Literal["LOW", "MEDIUM", "HIGH"] = "HIGH"
    confirm_unknown: bool = True

    def asks(self, risk: Risk) -> bool:
        if risk == "UNKNOWN":
            return self.confirm_unknown
        return _ORDER.index(risk) >= _ORDER.index(self.threshold)


ConfirmationPolicy = Annotated[NeverConfirm | AlwaysConfirm | ConfirmRisky, Field(discriminator="kind")]

#: kinds of the wire that this runtime does not run
_ELSEWHERE = (
    "PatternSecurityAnalyzer",
    "PolicyRailSecurityAnalyzer",
    "EnsembleSecurityAnalyzer",
    "GraySwanAnalyzer",
    "ToolShieldLLMSecurityAnalyzer",
)


def _available(value: Any) -> Any:
    if isinstance(value, dict) and value.get("kind") in _ELSEWHERE:
        raise ValueError(f"{value['kind']} is not available here: use LLMSecurityAnalyzer, or null for none")
    return value


class LlmSecurityAnalyzer(_Closed):
    """The model judges each of its acts itself."""

    kind: Literal["LLMSecurityAnalyzer"]


SecurityAnalyzer = Annotated[LlmSecurityAnalyzer, BeforeValidator(_available)]


def analyzer_of(stored: dict[str, Any] | None) -> LlmSecurityAnalyzer | None:
    """The analyzer as a record keeps it. Raises ValidationError."""
    return None if stored is None else LlmSecurityAnalyzer.model_validate(stored)


_policies: TypeAdapter[ConfirmationPolicy] = TypeAdapter(ConfirmationPolicy)


def policy_of(stored: dict[str, Any]) -> NeverConfirm | AlwaysConfirm | ConfirmRisky:
    """The policy as a record keeps it. Raises ValidationError."""
    return _policies.validate_python(stored)


def must_confirm(policy: dict[str, Any], analyzer: dict[str, Any] | None, risks: Sequence[Risk]) -> bool:
    """Whether somebody has to be asked before acts of these risks; without an analyzer nobody has judged them."""
    asking = policy_of(policy)
    return any(asking.asks(risk if analyzer is not None else "UNKNOWN") for risk in risks)
