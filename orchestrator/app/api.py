"""The ASGI application: routers, middleware and the table of failures."""

import time

from fastapi import Depends, FastAPI

from orchestrator.api import (
    conversations,
    event_stream,
    inspection,
    messages,
    metrics,
    middleware,
    older,
    operations,
    problems,
    query,
    settings,
    tenants,
    webhooks,
)
from orchestrator.api.context import Services
from orchestrator.api.idempotency import IdempotencyKeys
from orchestrator.facades.dialect import Dialects


def build(services: Services) -> FastAPI:
    """The application over services that are running already."""
    app = FastAPI(title="Nestor", version=services.about.get("version", ""), redoc_url="/redoc")
    app.state.services = services
    app.state.started = time.monotonic()
    for module in (operations, metrics, older):
        app.include_router(module.router)
    for module in (tenants, settings, conversations, inspection, messages, event_stream, webhooks):
        app.include_router(module.router, dependencies=[Depends(query.refuse_unknown)])
    problems.install(app)
    app.add_middleware(Dialects)
    app.add_middleware(IdempotencyKeys, services=services)
    app.add_middleware(middleware.BodyLimit)
    app.add_middleware(middleware.RequestIds)
    return app
