"""Everything that has to run before the story can be played: a model, a git server, an orchestrator.

`run.py` enters it for the length of the run. A real model or an orchestrator that already runs takes the place of the
demo's own.
"""

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.demo.display import Display
from orchestrator.demo.git_server import GitServer
from orchestrator.demo.model_server import MODEL_NAME, ScriptedModel
from orchestrator.demo.options import DemoFailed, DemoOptions, ModelChoice
from orchestrator.demo.orchestrator_process import RunningOrchestrator, orchestrator_process
from orchestrator.demo.place import Place, place_for
from orchestrator.domain.secrets import new_secret

#: Dollars a token, in and out: the costs in the closing table then show that they are counted.
_MADE_UP_PRICES = (1e-6, 4e-6)


@dataclass(frozen=True)
class House:
    """Everything that has to run before the story can be played."""

    orchestrator: RunningOrchestrator
    git: GitServer
    model: ModelChoice


@contextlib.asynccontextmanager
async def house_for(options: DemoOptions, folder: Path, display: Display) -> AsyncIterator[House]:
    """Model, git server and orchestrator, in this order; ended in the other one."""
    if options.url is not None and options.operator_key is None:
        raise DemoFailed(f"the operator key of {options.url} is not given: it is needed to make tenants")
    async with contextlib.AsyncExitStack() as stack:
        place = await stack.enter_async_context(place_for(options))
        model = options.model
        if model is None:
            model = await stack.enter_async_context(_scripted(place))
        display.note(f"model: {_about(model)}")
        repositories = Path(tempfile.mkdtemp(prefix="demo-git-", dir=folder))
        if not options.keep:
            stack.callback(shutil.rmtree, repositories)
        git = await stack.enter_async_context(GitServer(repositories, host=place.host, port=place.git_port))
        display.note(f"git server: {git.origin}")
        orchestrator = await stack.enter_async_context(_orchestrator(options, folder, place))
        display.note(f"orchestrator: {orchestrator.url}")
        yield House(orchestrator, git, model)


@contextlib.asynccontextmanager
async def _scripted(place: Place) -> AsyncIterator[ModelChoice]:
    key = new_secret()
    async with ScriptedModel(required_key=key.open(), host=place.host, port=place.model_port) as server:
        yield ModelChoice(model=f"openai/{MODEL_NAME}", api_key=key, base_url=server.base_url, prices=_MADE_UP_PRICES)


def _about(model: ModelChoice) -> str:
    """The model in words; a made-up price is called that, so that nobody takes the costs for real ones."""
    if model.prices is None:
        return model.model
    prices = " in, ".join(f"${price * 1_000_000:g}" for price in model.prices)
    return f"{model.model} at {model.base_url}, plays a script; made-up price for a million tokens: {prices} out"


@contextlib.asynccontextmanager
async def _orchestrator(options: DemoOptions, folder: Path, place: Place) -> AsyncIterator[RunningOrchestrator]:
    if options.url is not None and options.operator_key is not None:
        yield RunningOrchestrator(options.url.rstrip("/"), options.operator_key)
        return
    async with orchestrator_process(folder, driver=options.driver, settings=place.settings) as started:
        yield started
