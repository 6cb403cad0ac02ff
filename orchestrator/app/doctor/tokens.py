"""The keys that tokens are checked by, where such are taken."""

from contextlib import AsyncExitStack

from orchestrator.app.doctor.finding import Finding, Level
from orchestrator.app.tokens import keys_of, source_of
from orchestrator.domain.errors import NestorError
from orchestrator.settings import OrchestratorSettings

_ABOUT = "token keys"


async def look(settings: OrchestratorSettings, stack: AsyncExitStack) -> list[Finding]:
    try:
        source = source_of(settings, stack)
        if source is None:
            return []
        found = await keys_of(settings, source).ask()
    except NestorError as exc:
        hint = exc.hint or "mend NESTOR_JWT_KEYS or what is there: until then tokens are refused, API keys are not"
        return [Finding(_ABOUT, Level.FAILURE, exc.message, hint)]
    if not found.keys:
        hint = "publish public keys: RSA of 2048 bits or more, P-256, P-384, P-521, Ed25519"
        return [Finding(_ABOUT, Level.FAILURE, f"none of {found.passed_over} keys can verify a token", hint)]
    if len(found.keys) > 1 and any(key.id is None for key in found.keys):
        hint = "give each a kid: with several keys, one without is never meant"
        return [Finding(_ABOUT, Level.WARNING, "a key of several has no name", hint)]
    passed_over = f"; {found.passed_over} others are not for that" if found.passed_over else ""
    return [Finding(_ABOUT, Level.OK, f"{len(found.keys)} can verify tokens{passed_over}")]
