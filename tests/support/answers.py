"""Answers of the native API, compared with what its served document declares: no field more, and none less."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
from jsonschema import Draft202012Validator

from support.orchestrators import Nestor

NATIVE = "/api/v2/"
_JSON = "application/json"
Call = tuple[str, str, int]


class Watch:
    """Looks at every answer of success that a client of an orchestrator gets. `seen`: which calls had one."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._components = document["components"]
        self._declared = dict(_declared(document))
        paths = {path for _, path, _ in self._declared}
        # `{item}` is one part of a path, but for the last one; what is written out goes before what is not
        self._paths = sorted(((_pattern(path), path) for path in paths), key=lambda one: one[1].count("{"))
        self.seen: set[Call] = set()

    @property
    def calls(self) -> set[Call]:
        """Every call, with each status of success that it may have, that answers JSON."""
        return set(self._declared)

    async def look(self, response: httpx.Response) -> None:
        """Raises `AssertionError` for an answer that is not as it is declared."""
        request = response.request
        told = (
            request.url.path.startswith(NATIVE) and request.method != "HEAD" and response.status_code in (200, 201, 202)
        )
        if not told or not response.headers.get("content-type", "").startswith(_JSON):
            return
        await response.aread()
        self.check(request.method, request.url.path, response.status_code, response.json())

    def check(self, method: str, path: str, status: int, answer: Any) -> None:
        """The same for one that came another way."""
        for pattern, template in self._paths:
            call = (method, template, status)
            if pattern.fullmatch(path) and call in self._declared:
                schema = {**self._declared[call], "components": self._components}
                wrong = [f"{one.json_path}: {one.message}" for one in Draft202012Validator(schema).iter_errors(answer)]
                assert not wrong, (call, wrong, answer)
                self.seen.add(call)
                return
        raise AssertionError(f"{method} {path} answered {status}, which the document does not declare")


async def watched(nestor: Nestor) -> Watch:
    """All that `nestor` answers from now on is compared with the document that it serves."""
    watch = Watch((await nestor.http.get("/openapi.json")).json())
    nestor.http.event_hooks = {"response": [watch.look]}
    return watch


def _declared(document: dict[str, Any]) -> Iterator[tuple[Call, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items() if path.startswith(NATIVE) else ():
            for status, response in operation["responses"].items():
                if status < "3" and _JSON in response.get("content", {}):
                    yield (method.upper(), path, int(status)), response["content"][_JSON]["schema"]


def _pattern(template: str) -> re.Pattern[str]:
    text = re.sub(r"\\\{(path|message)\\\}", ".+", re.escape(template))
    return re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", text))
