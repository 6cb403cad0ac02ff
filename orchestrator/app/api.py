"""The ASGI application: routers, middleware and the table of failures."""

import time

from fastapi import Depends, FastAPI

from orchestrator.api import (
    audit,
    conversations,
    describing,
    document,
    event_stream,
    files,
    inspection,
    links,
    messages,
    metrics,
    middleware,
    operations,
    problems,
    query,
    runtimes,
    settings,
    snapshots,
    tenants,
    usage,
    webhooks,
)
from orchestrator.api.audited import Audited
from orchestrator.api.conditions import Tags
from orchestrator.api.context import Services
from orchestrator.api.idempotency import IdempotencyKeys
from orchestrator.facades import missing
from orchestrator.facades.agent_server import conversations as agent_server
from orchestrator.facades.agent_server import settings as agent_server_settings
from orchestrator.facades.app_conversations import conversations as app_conversations
from orchestrator.facades.app_conversations import events as app_events
from orchestrator.facades.dialect import Dialects
from orchestrator.facades.last_known import LastKnown
from orchestrator.facades.runtime_api import routes as runtime_api
from orchestrator.facades.sandboxes import me
from orchestrator.facades.sandboxes import routes as sandboxes
from orchestrator.facades.sandboxes import secrets as sandbox_secrets
from orchestrator.facades.v0 import configuration
from orchestrator.facades.v0 import conversations as v0
from orchestrator.facades.v0 import files as v0_files


def build(services: Services) -> FastAPI:
    """The application over services that are running already."""
    app = FastAPI(title="Nestor", version=services.about.get("version", ""), redoc_url="/redoc")
    app.state.services = services
    app.state.started = time.monotonic()
    for module in (operations, metrics):
        app.include_router(module.router)
    around = (describing, inspection, messages, event_stream, files, links, snapshots)
    for module in (tenants, settings, conversations, runtimes, *around, webhooks, usage, audit):
        app.include_router(module.router, dependencies=[Depends(query.refuse_unknown)])
    for facade in (agent_server, agent_server_settings, configuration, v0, app_conversations, app_events, v0_files):
        app.include_router(facade.router)
    for facade in (sandboxes, sandbox_secrets, me, runtime_api):
        app.include_router(facade.router)
    app.include_router(v0_files.app_router)
    app.include_router(missing.router)
    problems.install(app)
    document.install(app)
    app.add_middleware(Tags)
    app.add_middleware(Dialects)
    app.add_middleware(Audited, services=services)
    app.add_middleware(IdempotencyKeys, services=services)
    app.add_middleware(LastKnown)
    app.add_middleware(middleware.BodyLimit)
    app.add_middleware(middleware.ExactPaths)
    app.add_middleware(middleware.RequestIds)
    return app
