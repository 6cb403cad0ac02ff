"""Images as the engine has them: what a name stands for, and how one is fetched before anybody waits for it."""

from collections.abc import Mapping
from typing import Any

from docker import APIClient
from docker.errors import APIError
from docker.utils import parse_repository_tag

from orchestrator.drivers.docker_engine import Engine, Missing, Refused, describe_image
from orchestrator.drivers.errors import ImageUnavailable

PULL_SECONDS = 900
_WORDS = 300


def described(engine: Engine, name: str) -> Mapping[str, Any]:
    """Raises `ImageUnavailable` for one that the engine does not have; else as `Engine.ask`."""
    try:
        return describe_image(engine, name)
    except Missing as exc:
        raise ImageUnavailable(
            f"the engine has no image {name}", hint="build it with scripts/images, or pull it, then start again"
        ) from exc
    except Refused as exc:
        raise ImageUnavailable(f"{name[:100]!r} is no name of an image: {exc.message}") from exc


def image_id(engine: Engine, name: str) -> str:
    """See `base.Imaged`."""
    return str(described(engine, name)["Id"])


def pull(engine: Engine, name: str) -> None:
    """See `base.Imaged`. The engine tells most failures in the middle of its answer."""
    repository, tag = parse_repository_tag(name)

    def fetch(client: APIClient) -> str:
        try:
            told = client.pull(repository, tag=tag or "latest", stream=True, decode=True)
            return next((str(step["error"]) for step in told if "error" in step), "")
        except APIError as exc:  # a registry that does not answer is a 500 of the engine's
            return str(exc.explanation or "the engine gives no reason")

    trouble = engine.ask(f"pull {name}", fetch, seconds=PULL_SECONDS)
    if trouble:
        raise ImageUnavailable(
            f"the engine could not pull {name}: {trouble[:_WORDS]}",
            hint="check the name and the registry, or build or load the image and leave NESTOR_PULL_IMAGES at never",
        )
