"""A request that comes by a link: which port or path of which runtime it opens, and that it opens nothing else.

The links of a runtime travel with its route, so a decision reads nothing beside the route cache, and a link that was
taken back is refused as soon as a route that changed is. Everything that a link does not open is answered as an unknown
runtime is.
"""

import hmac
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from urllib.parse import quote

import anyio

from orchestrator.domain.links import digest_of
from orchestrator.proxy import answers
from orchestrator.proxy.admission import Refused, look_up, wake
from orchestrator.proxy.context import FrontContext
from orchestrator.proxy.pool import RouteUser
from orchestrator.proxy.route import LinkRoute, Route, Unavailable
from orchestrator.proxy.target import Destination, leads_to_init

#: An opaque origin, from which nothing of the main origin can be read; the page of a port may run its scripts in it.
PORT_PAGE = (
    b"content-security-policy: sandbox allow-scripts allow-forms allow-popups allow-modals allow-downloads",
    b"x-content-type-options: nosniff",
)


async def reach_by_link(
    context: FrontContext, destination: Destination, method: bytes, address: str
) -> tuple[Route, bytes]:
    """The route, marked with the link, and the target that the runtime is asked for. Wakes a runtime that sleeps.
    Raises `Refused`, and as `look_up` and `wake`."""
    runtime = destination.runtime
    known = context.known(runtime) if runtime is not None else None
    found = known or await look_up(context, runtime, address)
    opened(context, found, destination, address)
    route = await wake(context, found, runtime)
    link = opened(context, route, destination, address)
    if link.generation != route.generation or (link.port is None and method not in (b"GET", b"HEAD")):
        raise Refused(answers.NOT_FOUND)
    inner = target(link, destination.target)
    if leads_to_init(inner):  # of what is behind the link, an `/api/init` of its own is nothing special
        raise Refused(answers.NOT_FOUND)
    return replace(route, link=link.digest), inner


def opened(context: FrontContext, found: Route | Unavailable, destination: Destination, address: str) -> LinkRoute:
    """The link of that secret. Compared with each in a time that tells nothing. Raises `Refused`."""
    digest, right = digest_of(destination.link or b""), None
    for link in found.links:
        if hmac.compare_digest(link.digest, digest):
            right = link
    if right is None or right.expires_at <= time.time():
        context.missed(address)
        raise Refused(answers.NOT_FOUND)
    return right


async def watch(users: Callable[[], Iterable[RouteUser]], *, seconds: float = 0.7) -> None:
    """Until cancelled: end what came by a link that expired meanwhile. `users` is all that is open now."""
    while True:
        await anyio.sleep(seconds)
        end_expired(users())


def end_expired(users: Iterable[RouteUser]) -> None:
    """One round."""
    now = time.time()
    for user in list(users):
        by = user.route.link
        if by is not None and any(link.digest == by and link.expires_at <= now for link in user.route.links):
            user.revoke()


def target(link: LinkRoute, asked: bytes) -> bytes:
    """Where it leads inside. What was asked for is kept byte for byte, behind what the link names."""
    if link.port is not None:
        return b"/api/ports/%d" % link.port + asked
    path, mark, query = asked.partition(b"?")
    named = quote((link.path or "").rstrip("/"), safe="/").encode()
    below = path.strip(b"/")
    inner = b"/".join(part for part in (named, below) if part)
    return b"%b/%b" % (link.files.encode(), inner) + mark + query
