"""FastAPI and uvicorn, imported without what no runtime needs, and routes that are made when they are first looked at.

Importing this module does it, ahead of anything else that imports them; when they are there already it is without
effect. Left out are the models of the OpenAPI document, which are built when somebody asks for it; the first generation
of pydantic, which FastAPI imports only to find that no model of ours is one; uvicorn's command line; and what a page of
errors, the name of a status and a configuration of logs would need (`html`, `http.client`, `logging.config`). Each is
there for whoever asks for it later.

FastAPI makes all that a route needs to parse requests where it is declared, and once more for the application that it
is included in, which is the only one that is ever used. The first is left out: it was a fifth of what a start takes.
"""

import http  # noqa: F401 - it holds what stands in for its client
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import unwrap
from types import FunctionType, ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict
from typing_extensions import is_typeddict

_COMMAND_LINE = "uvicorn.main"
_LOG_CONFIGURATION = "logging.config"


def _import_framework() -> None:
    if "fastapi" in sys.modules:
        return
    with _models_built_later(), _stood_in_for("html"), _stood_in_for("http.client"):
        import_module("fastapi")
    _make_routes_late()
    _forget_descriptions()
    _tell_places_from_code()
    for name, asks in (("fastapi._compat.shared", "class"), ("fastapi.encoders", "instance")):
        _unless_imported(import_module(name), f"is_pydantic_v1_model_{asks}")


def _make_routes_late() -> None:
    from fastapi._form_limits import _validate_form_limits
    from fastapi.routing import APIRoute, APIRouter
    from starlette.routing import get_name

    class LateRoute(APIRoute):
        """A declared route: what it was told. Whoever asks for what is made of that finds it made then."""

        def __init__(self, path: str, endpoint: Callable[..., Any], **told: Any) -> None:
            self.__dict__.update(told, path=path, endpoint=endpoint, stream_item_type=None, _told=told)
            self.form_limits = _validate_form_limits(told.get("form_limits"))
            self.methods = {method.upper() for method in told["methods"] or ["GET"]}
            self.name = told["name"] or get_name(endpoint)

        def __getattr__(self, name: str) -> Any:
            told = self.__dict__.get("_told")
            if told is None or name.startswith("__"):
                raise AttributeError(name)
            made = APIRoute(self.path, self.endpoint, **told)
            self.__dict__.update(made.__dict__, _told=None)
            return getattr(self, name)

    defaults: dict[str, Any] = APIRouter.__init__.__kwdefaults__ or {}
    defaults["route_class"] = LateRoute  # of every router that is asked for no other class


def _forget_descriptions() -> None:
    """What the framework's own parameters are for is a text on each, and how a schema is written down is told by some
    hundred types; type checkers read both from the source, nobody asks for them at run time."""
    from fastapi import FastAPI, param_functions
    from fastapi.routing import APIRouter
    from pydantic_core import core_schema

    for owner in (FastAPI, APIRouter, param_functions):
        for function in vars(owner).values():
            if isinstance(function, FunctionType) and function.__module__.startswith("fastapi."):
                function.__annotations__ = {}
    for form in vars(core_schema).values():
        if is_typeddict(form):
            form.__annotations__ = {}


def _tell_places_from_code() -> None:
    """Where an endpoint is written is part of what the framework says of an answer that does not fit. It reads and
    parses the source for that, with the first request of each endpoint, although the compiled function knows it."""
    from fastapi import routing

    def place(endpoint: Callable[..., Any]) -> dict[str, Any]:
        code = getattr(unwrap(endpoint), "__code__", None)
        if code is None:
            return {}
        return {"file": code.co_filename, "line": code.co_firstlineno, "function": endpoint.__name__}

    vars(routing)["_extract_endpoint_context"] = place


@contextmanager
def _models_built_later() -> Iterator[None]:
    """What is defined in the block is built when it is first used, although some of it asks to be built at once."""
    config, own = BaseModel.model_config, BaseModel.__dict__["model_rebuild"]

    def rebuild(cls: type[BaseModel], /, **how: Any) -> bool | None:
        # A model that is used completes itself by this method, and says how; the framework asks without a word.
        built: bool | None = own.__get__(None, cls)(**how) if how else None
        return built

    BaseModel.model_config = ConfigDict(defer_build=True)
    BaseModel.model_rebuild = classmethod(rebuild)  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        BaseModel.model_config = config
        BaseModel.model_rebuild = own  # type: ignore[method-assign]


def _unless_imported(module: ModuleType, name: str) -> None:
    """Nothing is of a library that nobody has imported: its function need not import it to find that out."""
    asked = getattr(module, name)

    def asks(one: Any) -> bool:
        return "pydantic.v1" in sys.modules and asked(one)

    setattr(module, name, asks)


def _import_uvicorn() -> None:
    if "uvicorn" in sys.modules:
        return
    with _stood_in_for(_COMMAND_LINE, _of_the_command_line), _stood_in_for(_LOG_CONFIGURATION):
        import_module("uvicorn")


@contextmanager
def _stood_in_for(name: str, attribute: Callable[[str], Any] | None = None) -> Iterator[None]:
    """Whoever imports this module in the block gets something that imports it when it is used. Without effect where it
    is there already. `attribute` finds what is asked of it otherwise."""
    if name in sys.modules:
        yield
        return

    stand_in = ModuleType(name)

    def leave() -> None:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]

    def found(asked: str) -> Any:
        if asked.startswith("__"):
            raise AttributeError(asked)
        leave()
        return attribute(asked) if attribute is not None else getattr(import_module(name), asked)

    stand_in.__dict__["__getattr__"] = found
    sys.modules[name] = stand_in
    package, _, last = name.rpartition(".")
    if package in sys.modules:
        setattr(sys.modules[package], last, stand_in)
    try:
        yield
    finally:
        leave()


def _of_the_command_line(name: str) -> Any:
    if name == "Server":  # which is not of the command line
        return import_module("uvicorn.server").Server

    def called(*arguments: Any, **options: Any) -> Any:
        return getattr(import_module(_COMMAND_LINE), name)(*arguments, **options)

    return called


_import_framework()
_import_uvicorn()
