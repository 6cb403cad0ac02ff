"""Where clients come in: addresses, ports, workers, pages of browsers."""

import re
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from orchestrator.options.base import Settings, given, listed

_ADDRESS = re.compile(r"https?://(?:[\w.-]+|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?(?:/[^\s?#]*[^\s?#/])?")
_DOMAIN = re.compile(r"\w(?:[\w.-]*\w)?", re.ASCII)
_ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::[0-9]{1,5})?")


class ListeningSettings(Settings):
    """Where clients come in: addresses, ports, workers, pages of browsers."""

    host: str = "127.0.0.1"
    """Address to listen on. Loopback, because the process driver gives weaker isolation than containers."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes that serve the port together, each a replica, for more requests than one processor carries. Runtimes
    have no ports of their own then."""
    worker_socket: int | None = Field(default=None, ge=0)
    """Set by Nestor for each of several workers: the number of the listening socket that it was given."""
    allow_non_loopback: bool = False
    """Listen on another address than loopback although the process driver is used."""
    public_url: str | None = None
    """The address that clients use, if it is not the one that is listened on."""
    domain: str | None = None
    """Wildcard domain for one host name a runtime, `{runtime_id}.{domain}`."""
    runtime_ports: bool = True
    """One loopback port for each runtime, so that clients that need a bare origin have one."""
    data_plane: Literal["embedded", "nginx"] = "embedded"
    """What carries the bytes between clients and runtimes: this process, or nginx, which it then runs as a child and
    which asks it where to. nginx and its Lua module have to be installed."""
    decision_cache: bool = True
    """nginx as the data plane: keep a decision for a quarter of a second. Without it nginx asks for each request, and
    what is revoked here is refused at once."""
    allowed_origins: str = ""
    """Comma list of the origins of browser pages, as `https://app.example.org`, that may open sockets here and read
    answers of Nestor's own runtimes (CORS). Empty: pages of the same host only. Without a key they reach nothing."""
    allow_local_origins: bool | None = None
    """Whether pages that this machine's loopback serves may open sockets. Default: if Nestor listens on loopback."""
    connections_per_address: int | None = Field(default=None, ge=0)
    """Connections that one client address may have at once; 0 for any number, as behind a proxy that all come through.
    Default: a third of the descriptors that the process may open, so that one client cannot take all of them."""
    connections_per_tenant: int | None = Field(default=None, ge=0)
    """Requests and sockets to all runtimes of one tenant that may be under way at once; 0 for any number. What nginx
    carries as the data plane is not counted. Default: three quarters of the connections that clients may have."""
    runtime_facing: str | None = None
    """address:port of the listener to which runtimes tell their events. Default: a free port that is remembered, on
    loopback, or with containers on the address under which they see this machine. One that is given is insisted on."""
    runtime_facing_url: str | None = None
    """How runtimes reach that listener, where it is not by its own address."""

    @field_validator("host", mode="before")
    @classmethod
    def _host_given(cls, value: Any) -> Any:
        return given(value)

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, text: str) -> str:
        for origin in sorted(listed(text)):
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin[:60]} is not an origin: scheme and host in lower case, a port, no path")
        return text

    @field_validator("public_url", "runtime_facing_url")
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        if url is not None and not _ADDRESS.fullmatch(url):
            raise ValueError(f"{url[:60]!r} is no address: http or https, a host, a port, and no slash at its end")
        return url

    @field_validator("domain")
    @classmethod
    def _name(cls, domain: str | None) -> str | None:
        if domain is not None and not _DOMAIN.fullmatch(domain):
            raise ValueError(f"{domain[:60]!r} is no domain: a name without scheme, port and dots at its ends")
        return domain

    @model_validator(mode="after")
    def _data_plane(self) -> Self:
        if self.data_plane == "nginx" and (self.workers > 1 or self.worker_socket is not None):
            raise ValueError("NESTOR_DATA_PLANE: nginx has workers of its own, so leave out NESTOR_WORKERS")
        return self

    @property
    def origins(self) -> frozenset[str]:
        return listed(self.allowed_origins)
