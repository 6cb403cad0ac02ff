"""Fixtures of a scripted model and a runtime that talks to it, for the folders whose conftest.py takes them over."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.demo.model_server import ScriptedModel
from tests.support.runtimes import MODEL_KEY, Runtime, runtime_at

__all__ = ["model", "runtime"]


@pytest.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    async with ScriptedModel(required_key=MODEL_KEY) as made:
        yield made


@pytest.fixture
async def runtime(tmp_path: Path, model: ScriptedModel) -> AsyncIterator[Runtime]:
    async with runtime_at(tmp_path, model.base_url) as made:
        yield made
