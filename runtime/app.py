"""The composition root: the only place where settings become routers, middleware and a state.

`python -m runtime` and the tests call `build_app`. It imports every router and nothing imports it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from copy import copy
from importlib import import_module

from fastapi import Depends, FastAPI
from pydantic import SecretStr
from starlette.datastructures import State

from runtime.api import (
    agent_profiles,
    asking,
    bash,
    bash_socket,
    branches,
    catalogue,
    control,
    conversations,
    copies,
    digests,
    document,
    errors,
    events,
    files,
    git,
    goals,
    health,
    init,
    mcp,
    older,
    openai,
    place,
    ports,
    profiles,
    scoped,
    secrets,
    session_socket,
    settings,
    sockets,
    static,
    unavailable,
    workspace,
    workspace_files,
)
from runtime.api.cors import CrossOrigin
from runtime.api.dependencies import require_session_key
from runtime.api.gate import Gate
from runtime.api.hot import HotRoutes
from runtime.api.older_paths import OlderPaths
from runtime.boot import InitKey
from runtime.rehearsal import rehearse, rehearse_alone
from runtime.settings import InvalidConfiguration, RuntimeSettings
from runtime.state import RuntimeState, Stage

#: one that is bound at once after its start has other things to do
SPARE_AFTER_SECONDS = 1.0
_NOWHERE = {"type": "http", "method": "GET", "path": "/", "root_path": "", "headers": []}
#: an application without a state, made ahead of time; see `prepare`
_prepared: list[FastAPI] = []

#: what a start asks for, below /api and behind the key. A route is looked for in the order of the routers, and what
#: parses the requests of all routes of a router is made when the first of them is looked at (`parsers`): some
#: milliseconds for each ten, for which somebody would wait here. What is asked most has a way of its own (`HotRoutes`).
STARTING = (older.starting, settings.starting, digests.router, conversations.starting)
#: the rest of those
KEYED = (
    older,
    settings,
    secrets,
    conversations,
    events,
    control,
    branches,
    copies,
    goals,
    asking,
    profiles,
    agent_profiles,
    catalogue,
    mcp,
)


def build_app(configuration: RuntimeSettings, *, init_key: InitKey | SecretStr | None = None) -> FastAPI:
    """The application. With an init key (or `deferred_init`) it starts dormant, else its lifespan makes it ready.

    Raises InvalidConfiguration when `deferred_init` is set and there is no key to initialise it with.
    """
    state = RuntimeState(configuration, init_key=_init_key(configuration, init_key))
    app = _prepared.pop() if _prepared else _routed()
    if state.deferred:
        _make_ready_for_a_start(app)
    if not static.mount(app, configuration.static_files_path):
        app.include_router(static.router)
    return _dressed(app, state)


def _dressed(app: FastAPI, state: RuntimeState) -> FastAPI:
    app.state.runtime = state
    # The last one added is the outermost.
    app.add_middleware(Gate, state=state, routes=app.router.routes)
    app.add_middleware(errors.ErrorEdge)
    app.add_middleware(CrossOrigin, state=state)
    app.add_middleware(HotRoutes, state=state)
    app.add_middleware(OlderPaths, state=state)
    return app


def prepare() -> None:
    """Do the larger part of one `build_app` now, and of what its first requests make: for the next one, in this process
    or in one that is forked from it. Leaves no thread behind."""
    if not _prepared:
        app = _routed()
        for _ in parsers(app):
            pass
        rehearse_alone(lambda state: _understudy(app, state))
        _prepared.append(app)


def _understudy(app: FastAPI, state: RuntimeState) -> FastAPI:
    """The same routes over another state; the application itself stays as it is."""
    other = copy(app)
    other.state, other.user_middleware, other.middleware_stack = State(), [], None
    return _dressed(other, state)


def _make_ready_for_a_start(app: FastAPI) -> None:
    """What the calls of a start need, made while nobody waits for an answer yet: whoever is alive can be bound."""
    import_module("runtime.webhooks.service")  # every runtime of an orchestrator has one
    for route in app.router.routes[: app.state.starting]:
        route.matches(_NOWHERE)


def parsers(app: FastAPI) -> Iterator[None]:
    """Make what parses the requests of each router, one router a step: else the first requests wait for it, a quarter
    of a second in all. Idempotent."""
    for route in app.router.routes:
        route.matches(_NOWHERE)  # the framework makes them when it first looks for a path
        yield


def _routed() -> FastAPI:
    """All routes, which know nothing of settings: they ask the state that the application has by then."""
    app = FastAPI(title=health.TITLE, version=health.VERSION, lifespan=_lifespan)
    app.router.routes.insert(0, events.MessageRoute("/api"))
    app.include_router(init.router, prefix="/api")
    keyed = [Depends(require_session_key)]
    # Straight into the application: every router around another one looks through all routes once more.
    for router in STARTING:
        app.include_router(router, prefix="/api", dependencies=keyed)
    app.state.starting = len(app.router.routes)
    for module in KEYED:
        app.include_router(module.router, prefix="/api", dependencies=keyed)
    app.include_router(health.router)
    of_one = "/api/conversations/{conversation_id}"
    scoped_to = [*keyed, Depends(place.conversation)]
    for machine in (bash, files, git):
        app.include_router(machine.router, prefix="/api", dependencies=keyed)
        app.include_router(machine.router, prefix=of_one, dependencies=scoped_to)
    app.include_router(workspace_files.router, prefix="/api/workspace/files", dependencies=keyed)
    app.include_router(workspace_files.router, prefix=f"{of_one}/files", dependencies=scoped_to)
    app.include_router(scoped.router, prefix="/api", dependencies=keyed)
    app.include_router(workspace.router, prefix="/api")
    app.include_router(ports.router, prefix="/api")
    app.include_router(openai.router)
    app.include_router(unavailable.router)
    app.include_router(sockets.router)
    app.include_router(bash_socket.router)
    app.include_router(session_socket.router)
    errors.install(app)
    document.install(app)
    return app


def _init_key(configuration: RuntimeSettings, given: InitKey | SecretStr | None) -> InitKey | None:
    if isinstance(given, SecretStr):
        return InitKey(given)
    if given is None and configuration.deferred_init:
        if configuration.secret_key is None:
            raise InvalidConfiguration("OH_DEFERRED_INIT needs an init key: use --boot-key-fd, or set OH_SECRET_KEY")
        return InitKey(configuration.secret_key, travels=True)
    return given


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state: RuntimeState = app.state.runtime
    ahead = asyncio.create_task(_work_ahead(app, state)) if state.deferred else None
    if not state.deferred:
        await state.activate(state.settings)
    try:
        yield
    finally:
        if ahead is not None:
            ahead.cancel()
            with suppress(asyncio.CancelledError):
                await ahead
        await state.stop()


def _load_webhooks() -> None:
    import_module("runtime.webhooks.service")
    from runtime.webhooks.sender import load  # not before, for those that have no webhooks

    load()


async def _work_ahead(app: FastAPI, state: RuntimeState) -> None:
    """A dormant runtime that nobody binds is a spare: it does now, once, what whoever claims it would wait for."""
    await asyncio.sleep(SPARE_AFTER_SECONDS)
    if state.stage is Stage.DORMANT:
        await asyncio.to_thread(_load_webhooks)  # every runtime of an orchestrator has one
    for _ in parsers(app):
        if state.stage is not Stage.DORMANT:
            return
        await asyncio.sleep(0)
    await rehearse(lambda other: _understudy(app, other), state.settings, wanted=lambda: state.stage is Stage.DORMANT)
