"""What makes a waiting container the wrong one: another image under the same name, or another way to start it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchestrator.drivers.docker_spec import BOOTS, NO_CHOICE, Hardening, image_of, spare_kind

DESCRIBED: Mapping[str, Any] = {
    "Id": "sha256:1",
    "Config": {"Labels": {BOOTS: "standard-input"}, "Entrypoint": ["nestor-runtime"]},
}


def kind(described: Mapping[str, Any] = DESCRIBED, network: str = "cell", hardening: Hardening = NO_CHOICE) -> str:
    return spare_kind(image_of("runtime:latest", described), described, network=network, hardening=hardening)


def test_an_image_that_was_built_anew_under_its_name_makes_other_spares() -> None:
    assert kind() == kind()
    assert kind({**DESCRIBED, "Id": "sha256:2"}) != kind()


def test_so_does_what_the_operator_chose_and_not_what_the_engine_is() -> None:
    assert kind(hardening=replace(NO_CHOICE, seccomp="{}")) != kind()
    assert kind(network="another") != kind()
    assert kind(hardening=replace(NO_CHOICE, swappiness=True)) == kind()
