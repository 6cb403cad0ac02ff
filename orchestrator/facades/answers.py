"""Failures as older clients read them: the native problem, with the words of their generation beside its own."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import JSONResponse, Response

from orchestrator.api import problems
from orchestrator.domain.errors import InvalidRequest, NestorError

Serve = Callable[[Request], Coroutine[Any, Any, Response]]


class V1Route(APIRoute):
    """`detail` is a list for what is wrong with a body or query (422), else a string; `error` is always a string."""

    def get_route_handler(self) -> Serve:
        """The framework's own, with failures told in the older form."""
        serve = super().get_route_handler()

        async def served(request: Request) -> Response:
            try:
                return await serve(request)
            except NestorError as exc:
                return self.failure(request, exc)
            except RequestValidationError as exc:
                return self.invalid(request, exc)

        return served

    def failure(self, request: Request, exc: NestorError) -> Response:
        """A failure that has a name."""
        return older(problems.of_error(request, exc))

    def invalid(self, request: Request, exc: RequestValidationError) -> Response:
        """What the framework refused, without the values that were sent."""
        found = [{name: item[name] for name in ("loc", "msg", "type")} for item in exc.errors()]
        where, words = "", "the request is not valid"
        if found:
            where, words = ".".join(map(str, found[0]["loc"][1:])), str(found[0]["msg"])
        named = InvalidRequest(f"{where}: {words}" if where else words, field=where or None)
        return older(problems.of_error(request, named), detail=found)


class V0Route(V1Route):
    """As V1, with `status` and `message`, which scripts of V0 read first."""

    def failure(self, request: Request, exc: NestorError) -> Response:
        """With the `msg_id` that V0 has for it, if it has one."""
        return refused(super().failure(request, exc), None)

    def invalid(self, request: Request, exc: RequestValidationError) -> Response:
        """As a failure."""
        return refused(super().invalid(request, exc), None)


def older(problem: Response, **instead: Any) -> Response:
    """A problem document as plain JSON, which the clients of the older surfaces look for."""
    headers = {name: value for name, value in problem.headers.items() if name not in ("content-type", "content-length")}
    return JSONResponse(json.loads(bytes(problem.body)) | instead, problem.status_code, headers)


def refused(problem: Response, msg_id: str | None, *, status: int | None = None) -> Response:
    """The same as V0 says it; `status` instead of the problem's own."""
    document = json.loads(bytes(problem.body))
    words = {"status": "error", "message": document["error"], **({"msg_id": msg_id} if msg_id else {})}
    answer = older(problem, **words)
    answer.status_code = status or problem.status_code
    return answer
