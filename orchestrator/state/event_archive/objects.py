"""Segments in object storage that speaks S3. A PUT is whole or not at all. Needs the extra `s3`.

Credentials come from the environment, as the client's own documentation says (AWS_ACCESS_KEY_ID and the like).
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from orchestrator.domain.errors import Misconfigured
from orchestrator.state.event_archive.places import EventsUnavailable, Missing

T = TypeVar("T")
_GONE = frozenset({"NoSuchKey", "404"})
_TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_THREADS = 8


class ObjectPlace:
    """See `places.Place`. The client is safe to share between threads."""

    def __init__(self, bucket: str, prefix: str, *, endpoint: str | None, region: str | None) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        config = Config(connect_timeout=3, read_timeout=10, retries={"max_attempts": 2}, max_pool_connections=_THREADS)
        self._client: Any = boto3.client("s3", endpoint_url=endpoint, region_name=region or "us-east-1", config=config)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="events")

    @classmethod
    def of_url(cls, url: str) -> "ObjectPlace":
        """`s3://bucket/prefix?endpoint=https://host&region=name`. Raises `Misconfigured`."""
        parts = urlsplit(url)
        given = parse_qs(parts.query)
        if set(given) - {"endpoint", "region"}:
            raise Misconfigured("NESTOR_EVENTS_URL knows endpoint and region behind the question mark")
        endpoint, region = given.get("endpoint", [None])[0], given.get("region", [None])[0]
        try:
            return cls(parts.netloc, parts.path, endpoint=endpoint, region=region)
        except (BotoCoreError, ValueError) as exc:
            raise Misconfigured("NESTOR_EVENTS_URL names no usable object storage") from exc

    async def put(self, name: str, content: bytes) -> None:
        await self._run(lambda: self._put(name, content))

    async def put_new(self, name: str, content: bytes) -> None:
        await self._run(lambda: self._put_new(name, content))

    async def get(self, name: str, *, offset: int, length: int) -> bytes:
        return await self._run(lambda: self._get(name, offset, length))

    async def names(self, folder: str) -> Sequence[str]:
        beginning = f"{self._prefix}{folder}/"
        return [name.removeprefix(beginning) for name in await self._run(lambda: self._keys(folder))]

    async def remove(self, name: str) -> None:
        await self._run(lambda: self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name))

    async def remove_folder(self, folder: str) -> None:
        await self._run(lambda: self._remove_folder(folder))

    async def close(self) -> None:
        self._pool.shutdown(wait=False)
        self._client.close()

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except (BotoCoreError, ClientError) as exc:
            code = exc.response["Error"]["Code"] if isinstance(exc, ClientError) else type(exc).__name__
            if code in _GONE:
                raise Missing from exc
            raise EventsUnavailable(
                f"the archive of events at s3://{self._bucket}/{self._prefix} cannot be used ({code})",
                hint="check bucket, endpoint and credentials of NESTOR_EVENTS_URL",
            ) from exc

    def _put(self, name: str, content: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=content)

    def _put_new(self, name: str, content: bytes) -> None:
        try:
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=content, IfNoneMatch="*")
        except ClientError as exc:
            if exc.response["Error"]["Code"] not in _TAKEN:
                raise

    def _get(self, name: str, offset: int, length: int) -> bytes:
        part = f"bytes={offset}" if offset < 0 else f"bytes={offset}-{offset + length - 1}"
        found: bytes = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name, Range=part)["Body"].read()
        return found

    def _keys(self, folder: str) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=f"{self._prefix}{folder}/"
        )
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def _remove_folder(self, folder: str) -> None:
        for key in self._keys(folder):
            self._client.delete_object(Bucket=self._bucket, Key=key)
