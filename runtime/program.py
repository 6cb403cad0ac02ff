"""What `python -m runtime` runs once it listens: everything that takes long to import."""

import argparse
import asyncio
import ctypes
import os
import resource
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import uvloop

from runtime import framework, logs  # noqa: F401 - ahead of all that imports the framework
from runtime.app import build_app
from runtime.boot import InitKey, key_from_descriptor, key_from_file
from runtime.listening import EVERYWHERE, LOOPBACK, CannotListen, failed, is_private, listen, port_of
from runtime.machine import account
from runtime.reloading import serve_and_reload
from runtime.serving import Server, configuration
from runtime.settings import InvalidConfiguration, RuntimeSettings, load

if TYPE_CHECKING:
    from fastapi import FastAPI

PR_SET_DUMPABLE = 4
OPEN_TO_ALL = (
    "refusing to listen on an address that others can reach without any key: set OH_SESSION_API_KEYS_0, "
    "or NESTOR_RUNTIME_ALLOW_OPEN=1 if everyone may use this server"
)


def run(options: argparse.Namespace, server: socket.socket | None) -> int:
    """Serve on that socket, or where the settings say. Returns the exit status."""
    try:
        settings = load(os.environ, directory=Path.cwd())
        server = server or listen(_default_host(settings), options.port)
        settings = _placed(settings, server)
        logs.configure(json_lines=settings.log_json)  # before the key is waited for: that may have something to say
        if options.reload:
            _harden()  # the parent has the same environment
            return serve_and_reload(server)
        init_key = _init_key(options)
        dormant = init_key is not None or settings.deferred_init
        if not (is_private(server) or settings.session_api_keys or dormant or settings.allow_open):
            raise InvalidConfiguration(OPEN_TO_ALL)
        _choose_account(settings)
        app = build_app(settings, init_key=init_key)
    except CannotListen as exc:
        return failed(exc, 1)
    except (InvalidConfiguration, OSError, ValueError) as exc:
        return failed(exc, 2)
    _harden()
    return _serve(app, server)


def _default_host(settings: RuntimeSettings) -> str:
    """Where nobody needs a key, only this machine is served unless somebody says otherwise."""
    return EVERYWHERE if settings.session_api_keys else LOOPBACK


def _init_key(options: argparse.Namespace) -> InitKey | None:
    if options.boot_key_fd is not None:
        os.fstat(options.boot_key_fd)  # an OSError now is clearer than a runtime that can never be initialised
        return key_from_descriptor(options.boot_key_fd)
    return key_from_file(options.boot_key_file) if options.boot_key_file is not None else None


def _placed(settings: RuntimeSettings, server: socket.socket) -> RuntimeSettings:
    """The settings with the port that is really listened on."""
    port = port_of(server)
    update: dict[str, object] = {"listen_port": port, "listens_privately": is_private(server)}
    if "internal_server_url" not in settings.model_fields_set and port is not None:
        update["internal_server_url"] = f"http://127.0.0.1:{port}"
    return settings.model_copy(update=update)


def _choose_account(settings: RuntimeSettings) -> None:
    state = (settings.persistence_dir, settings.conversations_path, settings.bash_events_dir)
    try:
        account.choose(settings.agent_user, workspace=settings.workspace_path, state=state)
    except account.NoAccount as exc:
        raise InvalidConfiguration(f"agent_user: {exc}") from None


def _harden() -> None:
    """Keep this process's memory and environment from the agent's shell, which may run as the same user."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        structlog.get_logger().warning("runtime.dumpable", error=os.strerror(ctypes.get_errno()))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _serve(app: "FastAPI", listening: socket.socket) -> int:
    server = Server(configuration(app), alone=True)
    name = listening.getsockname()
    structlog.get_logger().info("runtime.listening", address=name if isinstance(name, str) else f"{name[0]}:{name[1]}")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        # A lifespan that failed is logged by uvicorn, which then exits with status 3.
        runner.run(server.serve(sockets=[listening]))
    return 0
