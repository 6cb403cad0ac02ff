"""Which error of the model library is which error of the contract, and whether asking again may help. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.events.models import ErrorClassification

_SETTINGS = ErrorClassification(kind="config", retryable=False, user_action="settings")
#: of a call that was not made because it is too long
TOO_LONG = _SETTINGS
_AUTH = ErrorClassification(kind="auth", retryable=False, user_action="settings")
_QUOTA = ErrorClassification(kind="quota", retryable=False, user_action="settings")
_RATE = ErrorClassification(kind="rate_limit", retryable=True, user_action="retry")
_TRANSIENT = ErrorClassification(kind="transient", retryable=True, user_action="retry")
_UNKNOWN = ErrorClassification(kind="unknown", retryable=False, user_action="retry")


@dataclass(frozen=True)
class Failure:
    """`code` is the client's exception name; `retry` says that the runtime itself asks again."""

    code: str
    classification: ErrorClassification
    retry: bool = False


#: by class name, so that this file needs no import of the library; a subclass counts by its own name first
_BY_NAME = {
    "ContextWindowExceededError": Failure("LLMContextWindowExceedError", _SETTINGS),
    "ContentPolicyViolationError": Failure("LLMContentPolicyViolationError", _SETTINGS),
    "AuthenticationError": Failure("LLMAuthenticationError", _AUTH),
    "PermissionDeniedError": Failure("LLMAuthenticationError", _AUTH),
    "BudgetExceededError": Failure("LLMRateLimitError", _QUOTA),
    "PaymentRequiredError": Failure("LLMRateLimitError", _QUOTA),
    "RateLimitError": Failure("LLMRateLimitError", _RATE, retry=True),
    "Timeout": Failure("LLMTimeoutError", _TRANSIENT, retry=True),
    "APITimeoutError": Failure("LLMTimeoutError", _TRANSIENT, retry=True),
    "TimeoutError": Failure("LLMTimeoutError", _TRANSIENT, retry=True),
    "ServiceUnavailableError": Failure("LLMServiceUnavailableError", _TRANSIENT, retry=True),
    "BadGatewayError": Failure("LLMServiceUnavailableError", _TRANSIENT, retry=True),
    "InternalServerError": Failure("LLMServiceUnavailableError", _TRANSIENT, retry=True),
    "APIConnectionError": Failure("LLMServiceUnavailableError", _TRANSIENT, retry=True),
    "NotFoundError": Failure("LLMBadRequestError", _SETTINGS),
    "UnprocessableEntityError": Failure("LLMBadRequestError", _SETTINGS),
    "BadRequestError": Failure("LLMBadRequestError", _SETTINGS),
    "APIError": Failure("LLMServiceUnavailableError", _TRANSIENT, retry=True),
}
#: where the class says no more than that the provider refused
_BY_STATUS = {
    402: Failure("LLMRateLimitError", _QUOTA),
    403: Failure("LLMAuthenticationError", _AUTH),
    413: Failure("LLMContextWindowExceedError", TOO_LONG),
}
_REFUSED = Failure("LLMBadRequestError", _SETTINGS)
#: refusals of the moment
_MAY_PASS = frozenset({408, 409, 425, 429})
#: what clients of models say when there is no key at all; the library takes some of it for a failure of the server
_NO_KEY = ("Missing credentials", "api_key client option must be set")
_OTHER = Failure("LLMError", _UNKNOWN)


def failure_of(error: BaseException) -> Failure:
    """How this error counts; the nearest known class among its ancestors decides."""
    if any(words in str(error) for words in _NO_KEY):
        return Failure("LLMAuthenticationError", _AUTH)
    named = (_BY_NAME[one.__name__] for one in type(error).__mro__ if one.__name__ in _BY_NAME)
    found = next(named, _OTHER)
    status = getattr(error, "status_code", None)
    if found.retry and isinstance(status, int) and 400 <= status < 500 and status not in _MAY_PASS:
        return _BY_STATUS.get(status, _REFUSED)
    return found
