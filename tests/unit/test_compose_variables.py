"""What an operator may choose he may choose with compose too: each variable is passed on, or has a reason not to be."""

from pathlib import Path

import yaml

from orchestrator.settings import OrchestratorSettings

COMPOSE = Path(__file__).parents[2] / "deploy" / "compose.yaml"
#: Those that are compose's own to choose.
NOT_PASSED = {
    "the replicas listen on loopback, and the front carries the bytes": (
        "HOST", "ALLOW_NON_LOOPBACK", "DATA_PLANE", "DECISION_CACHE", "WORKERS", "WORKER_SOCKET",
    ),
    "Redis is the one beside them": ("REDIS_URL",),
    "the data folder is a volume, and so nothing in it goes when they end": (
        "EPHEMERAL", "MASTER_KEY", "MASTER_KEY_FILE", "JOURNAL_URL", "EVENTS_URL",
    ),
    "the bridge is compose's own": (
        "CONTAINER", "RUNTIME_CELLS", "RUNTIME_POOL", "RUNTIME_SUBNET", "RUNTIME_FACING_URL",
    ),
    "the gate lets no image be fetched, and the proxy's is built here": ("PULL_IMAGES", "EGRESS_IMAGE"),
    "a file, which would have to be mounted, and a profile that the gate does not know": ("SECCOMP_PROFILE",),
    "of other drivers": ("FAKE_ENGINE", "NAMESPACES", "RUNTIME_COMMAND", "ZYGOTE"),
}  # fmt: skip


def test_every_variable_is_passed_on_or_has_a_reason_not_to_be() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    passed = set(services["orchestrator"]["environment"])
    known = {f"NESTOR_{name.upper()}" for name in OrchestratorSettings.model_fields}
    own = {f"NESTOR_{name}" for names in NOT_PASSED.values() for name in names}
    assert own <= known
    assert passed == known - own
    # Both replicas are told the same but for where they listen.
    second = services["orchestrator-2"]["environment"]
    assert {name for name in passed if services["orchestrator"]["environment"][name] != second[name]} == {"NESTOR_PORT"}


def test_a_base_is_chosen_for_all_images_at_once() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    built = {name: service["build"]["args"]["BASE_IMAGE"] for name, service in services.items() if "build" in service}
    assert set(built) == {"runtime-image", "orchestrator-image", "egress-image", "front"}
    as_they_are = (services["gate"]["image"], services["keeper"]["image"])
    assert {*built.values(), *as_they_are} == {"${BASE_IMAGE:-python:3.13-slim-trixie}"}
