"""What is counted and timed, for `/metrics` (`docs/operations.md` lists it). Of this process, since its start.

Labels are words of closed lists: never an id, a name that somebody chose, or a text of an error.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLOW = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

STARTS = Counter(
    "nestor_starts", "Starts of conversations that ended.", ("outcome", "reason"), registry=REGISTRY
)  #: outcome: ready, failed, retried; reason: of `Reason`, empty for ready
START_SECONDS = Histogram(
    "nestor_start_seconds", "From the first step of a start to ready.", ("way",), buckets=_SLOW, registry=REGISTRY
)  #: way: cold, warm
STEP_SECONDS = Histogram(
    "nestor_start_step_seconds", "Steps of starts.", ("step", "outcome"), buckets=_SLOW, registry=REGISTRY
)
RUNTIME_CALL_SECONDS = Histogram(
    "nestor_runtime_call_seconds", "Calls to runtimes, answered or not.", ("call",), buckets=_SLOW, registry=REGISTRY
)  #: call: method and the first two parts of the path
IMAGE_STARTS = Counter(
    "nestor_image_starts", "Starts that ended, by the image.", ("image", "outcome"), registry=REGISTRY
)  #: image: default, canary, other; outcome: ready, failed
IMAGE_LOST = Counter(
    "nestor_image_runtimes_lost", "Runtimes that died or vanished, by the image.", ("image",), registry=REGISTRY
)
UNDO_STUCK = Counter("nestor_undo_stuck", "Undos that failed and are tried again.", ("step",), registry=REGISTRY)
STEPS_OVERDUE = Counter(
    "nestor_steps_overdue", "Steps of sagas, and undos, that took longer than they may.", ("step",), registry=REGISTRY
)
CALLS_HANGING = Gauge(
    "nestor_driver_calls_hanging", "Calls of the driver that go on although nobody waits for them.", registry=REGISTRY
)
SPARES_ASKED = Counter(
    "nestor_warm_pool_asked", "Starts that asked the warm pool.", ("outcome",), registry=REGISTRY
)  #: hit, miss, not_taken
REFUSED = Counter(
    "nestor_admission_refused", "Starts refused by a limit, by the rule that refused.", ("rule",), registry=REGISTRY
)
CALLS_REFUSED = Counter(
    "nestor_calls_refused",
    "Calls of the API refused because their key or tenant sent too many.",
    ("rule",),
    registry=REGISTRY,
)  #: rule: key.calls, tenant.calls
DRIFTS = Counter(
    "nestor_configuration_drifts",
    "Parts of a pushed configuration that somebody changed in a runtime.",
    ("part",),
    registry=REGISTRY,
)
EVENTS_TOLD = Counter(
    "nestor_events_told", "Events that runtimes told by themselves, at the runtime-facing listener.", registry=REGISTRY
)
LEASES_LOST = Counter("nestor_leases_lost", "Acts that ended because their lease was lost.", registry=REGISTRY)
WORK_FAILED = Counter("nestor_work_failed", "Acts on conversations that ended by an exception.", registry=REGISTRY)
ORPHANS = Counter("nestor_orphans_removed", "Runtimes removed because no record owned them.", registry=REGISTRY)
DELIVERIES = Counter(
    "nestor_deliveries", "Messages taken by runtimes, and webhooks by outcome.", ("kind", "outcome"), registry=REGISTRY
)  #: kind: message, webhook; outcome: delivered, failed, given_up
STATE_ERRORS = Counter(
    "nestor_state_server_errors", "Calls to the state server that failed, by kind.", ("kind",), registry=REGISTRY
)
TICK_SECONDS = Histogram(
    "nestor_tick_seconds", "One round of a background loop.", ("loop",), buckets=_QUICK, registry=REGISTRY
)
LOOP_LATE_SECONDS = Histogram(
    "nestor_loop_late_seconds",
    "How late the event loop came to a task that was due, looked at ten times a second.",
    buckets=_QUICK,
    registry=REGISTRY,
)


@contextmanager
def ticking(loop: str) -> Iterator[None]:
    """The block is one round of that loop."""
    began = time.perf_counter()
    try:
        yield
    finally:
        TICK_SECONDS.labels(loop).observe(time.perf_counter() - began)
