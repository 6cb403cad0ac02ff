"""Segments in object storage that speaks S3 (`bucket.py`)."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from orchestrator.state.bucket import Bucket, BucketFailed, NoObject
from orchestrator.state.event_archive.places import EventsUnavailable, Missing

T = TypeVar("T")
_SETTING = "NESTOR_EVENTS_URL"


class ObjectPlace:
    """See `places.Place`."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    @classmethod
    def of_url(cls, url: str) -> "ObjectPlace":
        """See `Bucket.of_url`. Raises `Misconfigured`."""
        return cls(Bucket.of_url(url, setting=_SETTING))

    async def put(self, name: str, content: bytes) -> None:
        await self._run(lambda: self._bucket.put(name, content))

    async def put_new(self, name: str, content: bytes) -> None:
        await self._run(lambda: self._bucket.put_new(name, content))

    async def get(self, name: str, *, offset: int, length: int) -> bytes:
        part = f"bytes={offset}" if offset < 0 else f"bytes={offset}-{offset + length - 1}"
        return await self._run(lambda: self._bucket.get(name, part=part))

    async def names(self, folder: str) -> Sequence[str]:
        found = await self._run(lambda: self._bucket.sizes(f"{folder}/"))
        return [name.removeprefix(f"{folder}/") for name in found]

    async def below(self) -> Sequence[str]:
        return list(await self._run(lambda: self._bucket.sizes("")))

    async def remove(self, name: str) -> None:
        await self._run(lambda: self._bucket.remove(name))

    async def remove_folder(self, folder: str) -> None:
        await self._run(lambda: self._remove_folder(folder))

    async def room(self) -> int | None:
        return None

    async def close(self) -> None:
        await self._bucket.close()

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await self._bucket.run(work)
        except NoObject as exc:
            raise Missing from exc
        except BucketFailed as exc:
            raise EventsUnavailable(
                f"the archive of events at {self._bucket.where} cannot be used ({exc.code})",
                hint=f"check bucket, endpoint and credentials of {_SETTING}",
            ) from exc

    def _remove_folder(self, folder: str) -> None:
        for name in self._bucket.sizes(f"{folder}/"):
            self._bucket.remove(name)
