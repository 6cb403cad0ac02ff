"""Why a start failed, told to the user: one table from (step, failure) to a reason, a message and what to do."""

from dataclasses import replace

from orchestrator.domain.conversation import Reason, StartFailed, Why
from orchestrator.domain.errors import (
    DiskFull,
    DriverUnavailable,
    NestorError,
    RuntimeUnreachable,
    StepOverdue,
    StoreUnavailable,
    TransientError,
    Undecryptable,
)
from orchestrator.drivers.errors import MAKE_SPACE, ClaimTaken, ImageUnavailable, StartRefused, says_no_space
from orchestrator.nested.refusals import Impostor, Refused
from orchestrator.security.redaction import Redactor

_NET = Redactor()
#: step -> (reason, what did not work, what to do) where the failure itself says nothing better
_BY_STEP: dict[str, tuple[Reason, str, str]] = {
    "claim": (Reason.ENGINE_ERROR, "no spare could be asked for", "look at the engine, then start again"),
    "volume": (
        Reason.ENGINE_ERROR,
        "the workspace could not be made",
        "look at the engine and the disk, then start again",
    ),
    "create": (Reason.ENGINE_ERROR, "the runtime could not be made", "look at the engine, then start again"),
    "start": (
        Reason.IMAGE_START,
        "the runtime did not start",
        "the last log lines say why; check the runtime command or image",
    ),
    "alive": (
        Reason.HEALTH_TIMEOUT,
        "the runtime did not answer in time",
        "the last log lines say why; check the runtime command or image",
    ),
    "init": (
        Reason.CONFIG_REJECTED,
        "the runtime refused its keys",
        "the runtime and the orchestrator may be of different versions",
    ),
    "settings": (
        Reason.CONFIG_REJECTED,
        "the runtime refused the settings",
        "correct the settings, then start the conversation again",
    ),
    "providers": (
        Reason.CONFIG_REJECTED,
        "the runtime refused the git providers",
        "correct the git provider, then start the conversation again",
    ),
    "secrets": (
        Reason.CONFIG_REJECTED,
        "the runtime refused the secrets",
        "correct the secrets, then start the conversation again",
    ),
    "converse": (
        Reason.CONFIG_REJECTED,
        "the runtime refused the conversation",
        "correct the request or the settings, then start again",
    ),
    "publish": (Reason.STORE_UNAVAILABLE, "the route could not be published", "start the conversation again"),
    "thaw": (Reason.ENGINE_ERROR, "the runtime did not go on after its pause", "start the conversation again"),
}
#: what the runtime calls a failure -> (reason, what to do)
_BY_MESSAGE_ID: dict[str, tuple[Reason, str]] = {
    "STATUS$ERROR_REPOSITORY_UNAVAILABLE": (
        Reason.REPOSITORY_UNAVAILABLE,
        "check the repository's name, its branch and that the git provider's host can be reached",
    ),
    "STATUS$ERROR_GIT_PROVIDER_AUTHENTICATION": (
        Reason.CREDENTIAL_REJECTED,
        "store a valid token for the git provider (PUT /api/v2/git-providers/{provider}), then start again",
    ),
    "STATUS$ERROR_LLM_AUTHENTICATION": (
        Reason.CREDENTIAL_REJECTED,
        "store a valid model key (PATCH /api/v2/settings), then start again",
    ),
    "CONFIGURATION$SETTINGS_NOT_FOUND": (
        Reason.CONFIG_REJECTED,
        "store settings with a model first (PATCH /api/v2/settings)",
    ),
}


def explain(step: str, failure: BaseException) -> Why:
    """What is stored and told. Never holds a body, a secret or a foreign exception's text."""
    return without_tokens(_explained(step, failure))


def without_tokens(why: Why) -> Why:
    """The same without what has the shape of a token: a runtime's words and its last lines can hold anything."""
    return replace(why, message=_NET.text(why.message), log_tail=tuple(_NET.text(line) for line in why.log_tail))


def _explained(step: str, failure: BaseException) -> Why:
    reason, message, hint = _BY_STEP.get(
        step, (Reason.ENGINE_ERROR, "the start failed", "start the conversation again")
    )
    why = Why(reason, message, hint, retryable=isinstance(failure, TransientError), step=step)
    match failure:
        case StartFailed():
            return replace(failure.why, step=step)
        case Refused():
            return _refused(why, failure)
        case DiskFull():
            return replace(why, reason=Reason.DISK_FULL, message=failure.message, hint=failure.hint or MAKE_SPACE)
        case Impostor():
            return replace(why, reason=Reason.VERSION_SKEW, message=failure.message, hint=failure.hint or hint)
        case ClaimTaken():  # whose it is, is nobody else's business
            return replace(why, hint="make a conversation without an id of your own")
        case ImageUnavailable():
            return replace(why, reason=Reason.IMAGE_PULL, message=failure.message, hint=failure.hint or hint)
        case StartRefused():
            return replace(why, message=failure.message, log_tail=tuple(failure.details.get("log_tail", ())))
        case StoreUnavailable():
            return replace(why, reason=Reason.STORE_UNAVAILABLE, message=failure.message)
        case Undecryptable():
            return replace(
                why, message=failure.message, hint="load the master key that sealed this value, then start again"
            )
        case TimeoutError():
            return replace(
                why, reason=Reason.DEADLINE, message=f"{message}: the start's deadline is over", retryable=True
            )
        case StepOverdue():
            hint = "start it again; look at the engine, or give that step more time (NESTOR_STEP_SECONDS)"
            return replace(why, reason=Reason.DEADLINE, message=f"{message}: {failure.message}", hint=hint)
        case DriverUnavailable():  # nothing is known of the runtime, so nothing is said of it
            hint = failure.hint or "look at the engine, then start again"
            return replace(why, reason=Reason.ENGINE_ERROR, message=f"{message}: {failure.message}", hint=hint)
        case RuntimeUnreachable():  # it refused nothing
            hint = "start it again; where that happens often, look at the runtime's log and the network"
            return replace(why, reason=Reason.HEALTH_TIMEOUT, message=failure.message, hint=hint)
        case NestorError():
            return replace(why, message=f"{message}: {failure.message}", hint=failure.hint or hint)
        case _:
            return replace(why, message=f"{message} ({type(failure).__name__})")


def _refused(why: Why, failure: Refused) -> Why:
    if says_no_space(failure.said):
        message = f"{failure.call}: no space is left in the runtime"
        return replace(why, reason=Reason.DISK_FULL, message=message, hint=MAKE_SPACE, retryable=True)
    said = f", saying: {failure.said}" if failure.said else ""
    message = f"{why.message}: {failure.call} was answered {failure.status}{said}"
    if failure.message_id in _BY_MESSAGE_ID:
        reason, hint = _BY_MESSAGE_ID[failure.message_id]
        return replace(why, reason=reason, message=failure.said or message, hint=hint)
    if failure.status >= 500:
        return replace(
            why, message=message, retryable=True, hint="this is a failure of the runtime itself: start again"
        )
    return replace(why, message=message)
