"""The one client that calls addresses which callers chose, and that of the operator's key set. It connects to an
address that the guard has judged.

The name is looked up once and not by the HTTP library: the request goes to the judged address, with the name in the
Host header and in TLS, where the certificate is checked against it. No redirect is followed, no proxy of the
environment is used, no connection is kept (two names may share an address), and an answer is not read beyond its head,
or beyond what whoever asks has room for.
"""

import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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
    body: bytes = b""  #: of one that was asked for

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
        return await self._call("POST", url, body, headers, limit_bytes=0)

    async def get(self, url: str, *, limit_bytes: int) -> Answer:
        """With the body, which has to be no longer than that. Never raises for what the other side does."""
        return await self._call("GET", url, None, {"Accept": "application/json"}, limit_bytes=limit_bytes)

    async def _call(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], *, limit_bytes: int
    ) -> Answer:
        try:
            with anyio.fail_after(self._seconds):
                target = self._guard.read(url)
                addresses = await self._guard.addresses(target, self._resolve)
                return await self._send(method, target, addresses, body, headers, limit_bytes)
        except TargetRefused as exc:
            return Answer(None, exc.message, refused=True)
        except TimeoutError:
            return Answer(None, f"no answer within {self._seconds:g} seconds")
        except OSError:
            return Answer(None, "the host's name could not be resolved")

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def _send(
        self,
        method: str,
        target: Target,
        addresses: Sequence[str],
        body: bytes | None,
        headers: Mapping[str, str],
        limit_bytes: int,
    ) -> Answer:
        """To the first address that takes a connection."""
        problem = "the connection was refused"
        for address in addresses:
            place = f"[{address}]" if ":" in address else address
            request = self._client().build_request(
                method,
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
            try:
                return await _answer_with(response, limit_bytes)
            except httpx.HTTPError as exc:
                return Answer(None, f"the receiver broke off ({type(exc).__name__})")
            finally:
                await response.aclose()
        return Answer(None, problem)

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:  # reading the machine's certificates takes a while, and many houses call nobody
            own = Transport(verify=self._trust or ssl.create_default_context(), limits=_HEAD_ONLY)
            self._http = httpx.AsyncClient(
                transport=own, trust_env=False, follow_redirects=False, timeout=self._seconds
            )
        return self._http


async def _answer_with(response: httpx.Response, limit_bytes: int) -> Answer:
    """With as much of a good one's body as there is room for. Raises `httpx.HTTPError`."""
    answer, body = _answer(response), bytearray()
    if not limit_bytes or not answer.taken:
        return answer
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > limit_bytes:
            return Answer(None, f"the answer is longer than {limit_bytes} bytes")
    return replace(answer, body=bytes(body))


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
