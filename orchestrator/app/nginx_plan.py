"""What nginx is told: the templates (`deploy/nginx/`) filled in for one place. Nothing secret, and no runtime."""

import hashlib
import json
import os
import resource
import socket
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.domain.errors import Misconfigured
from orchestrator.proxy import answers
from orchestrator.proxy.limits import FrontLimits

_TEMPLATES = Path(__file__).parent / "nginx_templates"
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder in it is made for its owner only, and refused if it is another's
KEEP_SECONDS = 0.25  #: nginx keeps a decision for so long; with what a route cache lags behind, less than a second
STALE_SECONDS = 30.0  #: and for so long it goes on with one when nobody answers: nothing can be revoked then either
_CONNECTIONS = 16_384
_MODULES = (Path("/usr/lib/nginx/modules"), Path("/usr/lib64/nginx/modules"), Path("/usr/share/nginx/modules"))
_BUSY = "Too many connections to this runtime, to the runtimes of this tenant together, or of this address. Try again."
#: Of connections to runtimes. Its server is never used, the decision names one; many give a connection up after five
#: seconds.
_POOL = (
    "upstream runtimes{digit} {{ server 0.0.0.1; balancer_by_lua_block {{ nestor.connect() }} "
    "keepalive 256; keepalive_requests 1000000; keepalive_timeout 2s; }}"
)
_BY_HOST = r'"~*^(?<nestor_label>[0-9a-f-]{{32,36}})\.{domain}\.?(?::[0-9]*)?$" $nestor_label;'


def find_modules() -> Path:
    """Where its Lua module is. Raises `Misconfigured` naming the package.

    It is needed because nginx alone makes a connection for each request to an upstream that is not written in its
    configuration, and keeps answers in files only (docs/adr/0028).
    """
    for folder in _MODULES:
        if all((folder / name).exists() for name in ("ndk_http_module.so", "ngx_http_lua_module.so")):
            return folder
    raise Misconfigured(
        "the data plane is to be nginx, and its Lua module is missing",
        hint="apt-get install libnginx-mod-http-lua (with your distribution's nginx), or leave out --data-plane",
    )


def run_folder(folder: Path) -> Path:
    """Where the sockets are of the nginx whose configuration is in `folder`: the path of a socket may have no more than
    107 bytes."""
    digest = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:12]
    return _MEMORY / f"nestor-{os.geteuid()}-{digest}"


@dataclass(frozen=True)
class Plan:
    """What is rendered. `folder` gets the configuration, `run` what must not outlive the machine's memory."""

    folder: Path
    run: Path
    domain: str | None = None
    cached: bool = True  #: nginx keeps a decision for `KEEP_SECONDS`; False: it asks for each request
    workers: int | None = None  #: None: as many as processors
    drain_seconds: int = 5
    limits: FrontLimits = field(default_factory=FrontLimits)

    @property
    def front(self) -> Path:
        """The socket on which the orchestrator's front listens."""
        return self.run / "front.sock"

    @property
    def decision(self) -> Path:
        """The socket on which `proxy/decision.py` listens."""
        return self.run / "decision.sock"

    def render(self, listening: socket.socket) -> Path:
        """Write the configuration for that socket; its path. Nothing secret is in it."""
        for template in _TEMPLATES.iterdir():
            text = template.read_text()
            for name, value in self._values(listening).items():
                text = text.replace(f"@{name}@", value)
            (self.folder / template.name).write_text(text)
        return self.folder / "nginx.conf"

    def _values(self, listening: socket.socket) -> dict[str, str]:
        limits, most = self.limits, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        files = 4 * _CONNECTIONS if most == resource.RLIM_INFINITY else min(most, 4 * _CONNECTIONS)
        host, port = listening.getsockname()[:2]
        return {
            "folder": str(self.folder),
            "run": str(self.run),
            "user": "user root;" if os.geteuid() == 0 else "",  # as the orchestrator: the sockets are its own
            "workers": str(self.workers or "auto"),
            "files": str(files),
            "connections": str(min(_CONNECTIONS, files)),
            "drain": str(self.drain_seconds),
            "listen": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "head_ms": _milliseconds(limits.head_seconds),
            "idle_ms": _milliseconds(limits.idle_seconds),
            "body_ms": _milliseconds(limits.body_idle_seconds),
            "connect_ms": _milliseconds(limits.connect_seconds),
            "answer_ms": _milliseconds(limits.answer_idle_seconds),
            "decide_ms": _milliseconds(limits.resolve_seconds + 1),
            "of_an_address": f"limit_conn addresses {_counted(each)};"
            if (each := limits.connections_per_address)
            else "",
            "of_a_tenant": f"limit_conn tenants {_counted(together)};"
            if (together := limits.connections_per_tenant)
            else "",
            "pools": "\n  ".join(_POOL.format(digit=digit) for digit in range(10)),
            "head_bytes": str(limits.head_bytes),
            "header_count": str(limits.header_count),
            "connections_per_runtime": str(_counted(limits.connections_per_runtime)),
            "modules": str(find_modules()),
            "lua": "/usr/share/lua/5.1",
            "keep_seconds": f"{KEEP_SECONDS if self.cached else 0:g}",
            "stale_seconds": f"{STALE_SECONDS:g}",
            "by_host": _BY_HOST.format(domain=self.domain.lower().replace(".", r"\.")) if self.domain else "",
            "malformed": _body(answers.bad_request("it is not well-formed HTTP")),
            "long": _body(answers.TARGET_TOO_LONG),
            "large": _body(answers.HEAD_TOO_LARGE),
            "changed": _body(answers.CHANGED),
            "unreachable": _body(answers.unreachable()),
            "late": _body(answers.TOO_LATE),
            "busy": _body(answers.unavailable(_BUSY, 1)),
            "away": _body(answers.unavailable("The orchestrator does not answer. Try again.", 1)),
        }


def _counted(connections: int) -> int:
    return min(connections, 65_535)  # nginx counts no further


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))


def _body(refusal: answers.Refusal) -> str:
    """As a string between single quotes of nginx's configuration, which reads `$` and backslashes."""
    text = json.dumps(refusal.body, separators=(",", ":"))
    if any(sign in text for sign in "'$\\"):
        raise ValueError(f"this answer cannot be said by nginx: {text}")
    return text
