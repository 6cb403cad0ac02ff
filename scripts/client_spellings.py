"""How the two languages of `clients/` say what a schema says."""

import json
import keyword
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

_WIDTH = 118


@dataclass(frozen=True)
class Field:
    """One field of an object: `kind` is spelled already."""

    name: str
    kind: str
    description: str
    required: bool


class Spelling(Protocol):
    """How one language says it."""

    def plain(self, kind: str) -> str: ...
    def literal(self, values: Iterable[Any]) -> str: ...
    def any_of(self, kinds: list[str]) -> str: ...
    def list_of(self, kind: str) -> str: ...
    def map_of(self, kind: str) -> str: ...
    def alias(self, name: str, description: str, kind: str) -> str: ...
    def structure(self, name: str, description: str, fields: list[Field], *, open: bool) -> str: ...


class Python:
    _PLAIN: Mapping[str, str] = {
        "string": "str",
        "integer": "int",
        "number": "float",
        "boolean": "bool",
        "null": "None",
        "any": "Any",
        "binary": "bytes",
    }

    def plain(self, kind: str) -> str:
        return self._PLAIN[kind]

    def literal(self, values: Iterable[Any]) -> str:
        return f"Literal[{', '.join(json.dumps(value) for value in values)}]"

    def any_of(self, kinds: list[str]) -> str:
        return " | ".join(kinds)

    def list_of(self, kind: str) -> str:
        return f"list[{kind}]"

    def map_of(self, kind: str) -> str:
        return f"dict[str, {kind}]"

    def alias(self, name: str, description: str, kind: str) -> str:
        if len(f"{name} = {kind}") > _WIDTH and kind.startswith("Literal["):
            listed = "".join(f"    {value},\n" for value in kind.removeprefix("Literal[").removesuffix("]").split(", "))
            kind = f"Literal[\n{listed}]"
        return f"{comment(description, '#: ')}{name} = {kind}\n"

    def structure(self, name: str, description: str, fields: list[Field], *, open: bool) -> str:
        said = description + (" Other fields may be there." if open else "")
        lines = [f"class {name}(TypedDict):"]
        if said:
            lines += textwrap.wrap(f'"""{said.strip()}"""', _WIDTH, initial_indent="    ", subsequent_indent="    ")
            lines += [""] if fields else []
        for field in fields:
            if not field.name.isidentifier() or keyword.iskeyword(field.name):
                raise SystemExit(f"{name}.{field.name} is no name of Python's")
            kind = field.kind if field.required else f"NotRequired[{field.kind}]"
            lines += [*comment(field.description, "    #: ").splitlines(), f"    {field.name}: {kind}"]
        return "\n".join(lines if len(lines) > 1 else [*lines, "    pass"]) + "\n"


class TypeScript:
    _PLAIN: Mapping[str, str] = {
        "string": "string",
        "integer": "number",
        "number": "number",
        "boolean": "boolean",
        "null": "null",
        "any": "unknown",
        "binary": "string | Uint8Array | ArrayBuffer",
    }

    def plain(self, kind: str) -> str:
        return self._PLAIN[kind]

    def literal(self, values: Iterable[Any]) -> str:
        return " | ".join(json.dumps(value) for value in values)

    def any_of(self, kinds: list[str]) -> str:
        return " | ".join(kinds)

    def list_of(self, kind: str) -> str:
        return f"({kind})[]" if "|" in kind else f"{kind}[]"

    def map_of(self, kind: str) -> str:
        return f"{{ [name: string]: {kind} }}"

    def alias(self, name: str, description: str, kind: str) -> str:
        return f"{block(description)}export type {name} = {kind};\n"

    def structure(self, name: str, description: str, fields: list[Field], *, open: bool) -> str:
        lines = [f"{block(description)}export interface {name} {{"]
        for field in fields:
            mark = "" if field.required else "?"
            lines += [*block(field.description, "  ").splitlines(), f"  {field.name}{mark}: {field.kind};"]
        lines += ["  [name: string]: unknown;"] if open else []
        return "\n".join([*lines, "}"]) + "\n"


def comment(text: str, mark: str) -> str:
    return "".join(f"{line}\n" for line in textwrap.wrap(text, _WIDTH, initial_indent=mark, subsequent_indent=mark))


def block(text: str, indent: str = "") -> str:
    return f"{indent}/** {text.replace('*/', '* /')} */\n" if text else ""
