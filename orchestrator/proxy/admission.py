"""May this request reach that runtime, and where is it: the part of proxying that exchanges and sockets share."""

from orchestrator.domain.ids import RuntimeId
from orchestrator.proxy import answers
from orchestrator.proxy.access import Access, access
from orchestrator.proxy.context import FrontContext
from orchestrator.proxy.head import Head
from orchestrator.proxy.route import Route, Unavailable


class Refused(Exception):
    """The request gets this answer and nothing else."""

    def __init__(self, refusal: answers.Refusal) -> None:
        self.refusal = refusal


def admit(head: Head, path: bytes, session_key_hash: str) -> Access:
    """What the request may do; raises `Refused` (401) when that is nothing."""
    granted = access(head, path, session_key_hash)
    if granted is Access.REFUSED:
        raise Refused(answers.UNAUTHORIZED)
    return granted


async def look_up(context: FrontContext, runtime: RuntimeId | None, address: str) -> Route | Unavailable:
    """What is known of the runtime. Raises `Refused` (404, or 429 for who guesses) and as `FrontContext.find`."""
    if runtime is None:
        raise Refused(answers.NOT_FOUND)
    if not context.may_guess(address):
        raise Refused(answers.TOO_MANY)
    found = await context.find(runtime)
    if found is None:
        context.missed(address)
        raise Refused(answers.NOT_FOUND)
    return found


async def wake(context: FrontContext, found: Route | Unavailable, runtime: RuntimeId | None) -> Route:
    """The route, after waking the runtime if it sleeps. Raises `Refused`, and as `FrontContext.rouse`.

    Call it only for a right key: what anybody may ask for must not start anything.
    """
    if isinstance(found, Route):
        return found
    if runtime is None or found.session_key_hash is None:
        raise Refused(answers.unavailable(found.message, found.retry_after))
    woken = await context.rouse(runtime)
    if woken is None:
        raise Refused(answers.NOT_FOUND)
    if isinstance(woken, Unavailable):
        raise Refused(answers.unavailable(woken.message, woken.retry_after, woken.details))
    return woken


async def reach(
    context: FrontContext, head: Head, path: bytes, runtime: RuntimeId | None, address: str
) -> tuple[Route, Access]:
    """Look up, check the key, wake: the whole way for a request whose route is not cached. Raises as its parts."""
    found = await look_up(context, runtime, address)
    if found.session_key_hash is None:
        raise Refused(answers.unavailable(found.message, found.retry_after))
    granted = admit(head, path, found.session_key_hash)
    if isinstance(found, Unavailable) and granted is not Access.WITH_KEY:
        raise Refused(answers.unavailable(found.message, found.retry_after))
    route = await wake(context, found, runtime)
    return route, admit(head, path, route.session_key_hash)
