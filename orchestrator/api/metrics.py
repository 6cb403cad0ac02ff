"""`/metrics` in the text format of Prometheus, for the operator's key alone."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from orchestrator.api.auth import ServicesOf, operator
from orchestrator.api.context import Services
from orchestrator.domain.conversation import Phase
from orchestrator.domain.errors import StoreUnavailable
from orchestrator.domain.tenancy import Caller
from orchestrator.services.images import Images
from orchestrator.state.figures import Figures
from orchestrator.telemetry import metrics

router = APIRouter(tags=["operations"])


@router.get("/metrics", response_class=Response)
async def get_metrics(services: ServicesOf, _: Annotated[Caller, Depends(operator)]) -> Response:
    """Counters and durations of this process, and how much there is in the state server, where that answers."""
    try:
        figures = await services.figures()
    except StoreUnavailable:
        figures = None
    present = CollectorRegistry(auto_describe=False)
    present.register(_Present(services, figures))
    return Response(generate_latest(metrics.REGISTRY) + generate_latest(present), media_type=CONTENT_TYPE_LATEST)


class _Present(Collector):
    """What is read when it is asked for."""

    def __init__(self, services: Services, figures: Figures | None) -> None:
        self._services = services
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        about = self._services.about
        info = GaugeMetricFamily("nestor_info", "What runs here.", labels=("version", "driver"))
        info.add_metric((about.get("version", ""), about.get("driver", "")), 1)
        yield info
        if self._services.images is not None:
            yield _images(self._services.images)
        yield _one("nestor_problems", "What /health finds wrong now.", len(self._services.problems()))
        yield _one("nestor_state_server_up", "Whether the state server answered.", self._figures is not None)
        if self._figures is None:
            return
        found = self._figures
        phases = GaugeMetricFamily("nestor_conversations", "Conversations by phase.", labels=("phase",))
        for phase in Phase:
            phases.add_metric((phase,), max(0, found.phases.get(phase, 0)))
        yield phases
        yield _one("nestor_tenants", "Tenants.", found.tenants)
        yield _one("nestor_queue_length", "Starts that wait for a slot.", found.waiting)
        yield _one("nestor_due_lag_seconds", "How long what is due first has been due.", found.overdue_seconds)
        yield _one("nestor_journal_unshipped_tenants", "Tenants with changes on their way.", found.unshipped)
        yield _one("nestor_warm_pool_spares", "Runtimes that are nobody's, ready or being made.", found.spares)


def _images(images: Images) -> Metric:
    info = GaugeMetricFamily("nestor_image_info", "What the operator's images are now.", labels=("image", "name", "id"))
    shares = {images.catalogue.default: "default", images.catalogue.canary: "canary"}
    for name, id in images.known.items():
        info.add_metric((shares.get(name, "other"), name, id), 1)
    return info


def _one(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
