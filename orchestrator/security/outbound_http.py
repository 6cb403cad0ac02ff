"""The one client that calls addresses which callers chose. It connects to an address that the guard has judged.

The name is looked up once and not by the HTTP library: the request goes to the judged address, with the name in the
Host header and in TLS, where the certificate is checked against it. No redirect is followed, no proxy of the
environment is used, no connection is kept (two names may share an address), and an answer is not read beyond its head.
"""

import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import anyio
import httpx

from orchestrator.security.connecting import Transport
from orchestrator.security.outbound import Guard, Resolver, Target, TargetRefused

_HEAD_ONLY = httpx.Limits(max_connections=None, max_keepalive_connections=0)
_MAXIMUM_RETRY_AFTER = 24 * 3600.0


@dataclass(frozen=True)
class Answer:
    """What came back. `status` None: nothing did, and `problem` says why in words of ours."""

    status: int | None
    problem: str = ""
    retry_after: float = 0.0  #: seconds for which the receiver wants to be left alone
    refused: bool = False  #: the guard said no, and nothing was sent

    @property
    def taken(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


async def resolve(host: str, port: int) -> Sequence[str]:
    """By the machine's own resolver. Raises OSError."""
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(place[4][0]) for place in found]


class Outbound:
    """Close it when its house goes. Safe to share between tasks."""

    def __init__(
        self,
        guard: Guard,
        *,
        seconds: float,
        resolver: Resolver = resolve,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """`seconds` for all of a call, the look-up included; `trust`: whose certificates, by default the machine's."""
        self._guard = guard
        self._seconds = seconds
        self._resolve = resolver
        self._trust = trust
        self._http: httpx.AsyncClient | None = None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Never raises for what the other side does."""
        try:
            with anyio.fail_after(self._seconds):
                target = self._guard.read(url)
                return await self._post(target, await self._guard.addresses(target, self._resolve), body, headers)
        except TargetRefused as exc:
            return Answer(None, exc.message, refused=True)
        except TimeoutError:
            return Answer(None, f"no answer within {self._seconds:g} seconds")
        except OSError:
            return Answer(None, "the host's name could not be resolved")

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def _post(self, target: Target, addresses: Sequence[str], body: bytes, headers: Mapping[str, str]) -> Answer:
        """To the first address that takes a connection."""
        problem = "the connection was refused"
        for address in addresses:
            place = f"[{address}]" if ":" in address else address
            request = self._client().build_request(
                "POST",
                httpx.URL(f"{target.scheme}://{place}:{target.port}{target.path}"),
                content=body,
                headers={**headers, "Host": target.authority, "Accept-Encoding": "identity"},
                extensions={"sni_hostname": target.host},
            )
            try:
                response = await self._client().send(request, stream=True)
            except httpx.ConnectError as exc:
                problem = _connecting(exc)
                continue
            except httpx.HTTPError as exc:
                return Answer(None, f"the receiver broke off ({type(exc).__name__})")
            await response.aclose()
            return _answer(response)
        return Answer(None, problem)

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:  # reading the machine's certificates takes a while, and many houses call nobody
            own = Transport(verify=self._trust or ssl.create_default_context(), limits=_HEAD_ONLY)
            self._http = httpx.AsyncClient(
                transport=own, trust_env=False, follow_redirects=False, timeout=self._seconds
            )
        return self._http


def _connecting(exc: BaseException) -> str:
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "the receiver's certificate is not valid for its name"
        if isinstance(cause, ssl.SSLError):
            return "the receiver does not speak TLS"
        cause = cause.__cause__ or cause.__context__
    return "the connection was refused"


def _answer(response: httpx.Response) -> Answer:
    status = response.status_code
    if 300 <= status < 400:
        return Answer(status, "the receiver sent us elsewhere; redirects are not followed")
    text = response.headers.get("retry-after", "")
    asked = float(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0.0
    problem = "" if 200 <= status < 300 else f"the receiver answered {status}"
    return Answer(status, problem, min(asked, _MAXIMUM_RETRY_AFTER))
