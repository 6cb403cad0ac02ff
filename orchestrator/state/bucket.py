"""A part of a bucket in object storage that speaks S3. A PUT is whole or not at all. Needs the extra `s3`.

Credentials come from the environment, as the client's own documentation says (AWS_ACCESS_KEY_ID and the like).
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar
from urllib.parse import parse_qs, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from orchestrator.domain.errors import Misconfigured

T = TypeVar("T")
_GONE = frozenset({"NoSuchKey", "404"})
_TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_THREADS = 8


class NoObject(Exception):
    """There is no object of this name (any more)."""


class BucketFailed(Exception):
    """The storage cannot be used now; carries its own word for why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Bucket:
    """Names are relative to the prefix. The blocking methods are for `run`, which has threads for them; the client is
    safe to share between those."""

    def __init__(self, bucket: str, prefix: str, *, endpoint: str | None, region: str | None) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.where = f"s3://{bucket}/{self._prefix}"
        config = Config(connect_timeout=3, read_timeout=10, retries={"max_attempts": 2}, max_pool_connections=_THREADS)
        self._client: Any = boto3.client("s3", endpoint_url=endpoint, region_name=region or "us-east-1", config=config)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="bucket")

    @classmethod
    def of_url(cls, url: str, *, setting: str) -> Self:
        """`s3://bucket/prefix?endpoint=https://host&region=name`. Raises `Misconfigured`, which names the setting."""
        parts = urlsplit(url)
        given = parse_qs(parts.query)
        if set(given) - {"endpoint", "region"}:
            raise Misconfigured(f"{setting} knows endpoint and region behind the question mark")
        endpoint, region = given.get("endpoint", [None])[0], given.get("region", [None])[0]
        try:
            return cls(parts.netloc, parts.path, endpoint=endpoint, region=region)
        except (BotoCoreError, ValueError) as exc:
            raise Misconfigured(f"{setting} names no usable object storage") from exc

    async def run(self, work: Callable[[], T]) -> T:
        """The work's answer, from a thread. Raises `NoObject`, `BucketFailed`."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except (BotoCoreError, ClientError) as exc:
            code = _code(exc) if isinstance(exc, ClientError) else type(exc).__name__
            raise NoObject if code in _GONE else BucketFailed(code) from exc

    async def close(self) -> None:
        """Work under way is left to end."""
        self._pool.shutdown(wait=False)
        self._client.close()

    def put(self, name: str, content: bytes) -> None:
        """There for good when this returns; one that is there is replaced."""
        self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=content)

    def put_new(self, name: str, content: bytes) -> bool:
        """The same; False, and nothing changed, when the name is taken (`If-None-Match: *`)."""
        try:
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=content, IfNoneMatch="*")
        except ClientError as exc:
            if _code(exc) in _TAKEN:
                return False
            raise
        return True

    def get(self, name: str, *, part: str | None = None) -> bytes:
        """The object, or the `part` of it that a Range header names."""
        more = {} if part is None else {"Range": part}
        content: bytes = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name, **more)["Body"].read()
        return content

    def sizes(self, beginning: str) -> Mapping[str, int]:
        """In bytes, of every object whose name begins like this."""
        pages = self._pages(Prefix=self._prefix + beginning)
        found = (item for page in pages for item in page.get("Contents", ()))
        return {item["Key"].removeprefix(self._prefix): item["Size"] for item in found}

    def size(self, name: str) -> int:
        """In bytes."""
        return int(self._client.head_object(Bucket=self._bucket, Key=self._prefix + name)["ContentLength"])

    def folders(self) -> Sequence[str]:
        """What stands before the first slash of a name, each once."""
        pages = self._pages(Prefix=self._prefix, Delimiter="/")
        found = (group["Prefix"] for page in pages for group in page.get("CommonPrefixes", ()))
        return sorted(name.removeprefix(self._prefix).rstrip("/") for name in found)

    def remove(self, name: str) -> None:
        """One that is gone is fine."""
        self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)

    def _pages(self, **selection: str) -> Any:
        return self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, **selection)


def _code(error: ClientError) -> str:
    code: str = error.response["Error"]["Code"]
    return code
