"""What several workers of one port cannot have: refused before anything is bound or started."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from orchestrator.app import replicas
from orchestrator.domain.errors import Misconfigured
from orchestrator.settings import OrchestratorSettings, load


@pytest.mark.parametrize(
    ("chosen", "says"),
    [({"runtime_ports": True}, "NESTOR_RUNTIME_PORTS"), ({"driver": "fake"}, "fake driver keeps its runtimes in one")],
)
def test_refused_with_what_to_do(tmp_path: Path, chosen: dict[str, Any], says: str) -> None:
    settings = OrchestratorSettings(data_dir=tmp_path / "data", workers=2, port=0, **chosen)
    with pytest.raises(Misconfigured, match=says) as refused:
        asyncio.run(replicas.serve(settings, lambda url, key, about: None))
    assert refused.value.hint
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("number", [0, 65])
def test_a_number_that_makes_no_sense_is_refused_by_name(number: int) -> None:
    with pytest.raises(Misconfigured, match="NESTOR_WORKERS"):
        load({"workers": number})


def test_nginx_has_workers_of_its_own() -> None:
    with pytest.raises(Misconfigured, match="NESTOR_WORKERS"):
        load({"workers": 2, "data_plane": "nginx"})
