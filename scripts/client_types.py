"""The native API's types for clients, from the document that it serves: `clients/python` and `clients/typescript`.

One walk over the schemas of `/api/v2` and two spellings. What a schema has that is not known here is an error, so that
nothing is left out in silence.

    scripts/clients           write the files
    scripts/clients --check   compare them; 1 when one is stale
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from client_spellings import Field, Python, Spelling, TypeScript, block

NATIVE = "/api/v2"
CLIENTS = Path(__file__).resolve().parent.parent / "clients"
HEADER = "Types of Nestor's native API. Written by scripts/clients from /openapi.json: do not edit."
_KNOWN = frozenset(
    """
    $ref additionalProperties anyOf const default description discriminator enum examples exclusiveMaximum
    exclusiveMinimum format items maxItems maxLength maxProperties maximum minItems minLength minimum oneOf pattern
    patternProperties properties propertyNames required title type
    """.split()
)
Schema = Mapping[str, Any]
Object = tuple[str, str, Schema]  #: name, description, schema


class Writer:
    """Spells the schemas that the native API uses. Objects without a name get that of the field that they are in."""

    def __init__(self, document: Schema, spelling: Spelling) -> None:
        self._schemas: Schema = document["components"]["schemas"]
        self._say = spelling
        self._unnamed: list[Object] = []
        self._done: set[str] = set()

    def definitions(self, names: Iterable[str]) -> Iterator[str]:
        """Each after those that it refers to; else the choices first, and by name."""
        for name in sorted(names, key=lambda name: ("properties" in self._schemas[name], name)):
            if name not in self._done:
                self._done.add(name)
                yield from self.definitions(_used(self._schemas, self._schemas[name], set()))
                yield from self._definition((name, _text(self._schemas[name]), self._schemas[name]))

    def _definition(self, of: Object) -> Iterator[str]:
        name, description, schema = of
        _check(name, schema)
        if "properties" not in schema:
            yield self._say.alias(name, description, self.kind(schema, name))
            return
        required = schema.get("required", ())
        fields = [
            Field(field, self.kind(one, f"{name}_{field}"), _text(one), required=field in required)
            for field, one in schema["properties"].items()
        ]
        unnamed, self._unnamed = self._unnamed, []
        for one in unnamed:
            yield from self._definition(one)
        yield self._say.structure(name, description, fields, open=schema.get("additionalProperties") is True)

    def kind(self, schema: Schema, place: str) -> str:
        """The type that a schema is. `place` names it where it has no name."""
        _check(place, schema)
        if "$ref" in schema:
            return _named(schema)
        if "const" in schema:
            return self._say.literal([schema["const"]])
        if "enum" in schema:
            return self._say.literal(schema["enum"])
        for several in ("anyOf", "oneOf"):
            if several in schema:
                kinds = [self.kind(one, place) for one in schema[several]]
                return self._say.any_of(list(dict.fromkeys(kinds)))
        if isinstance(schema.get("type"), list):
            return self._say.any_of([self._say.plain(kind) for kind in schema["type"]])
        return self._by_type(schema, place)

    def _by_type(self, schema: Schema, place: str) -> str:
        match schema.get("type", "any"):
            case "array":
                return self._say.list_of(self.kind(schema.get("items", {}), place))
            case "object" if "properties" in schema:
                name = "".join(part.capitalize() if part.islower() else part for part in place.split("_"))
                self._unnamed.append((name, _text(schema), schema))
                return name
            case "object":
                below = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties", True)]
                named = [self.kind(one, place) for one in below if isinstance(one, Mapping)]
                return self._say.map_of(self._say.any_of(named) if named else self._say.plain("any"))
            case "string" if schema.get("format") == "binary":
                return self._say.plain("binary")
            case kind:
                return self._say.plain(kind)


def _check(place: str, schema: Schema) -> None:
    if unknown := set(schema) - _KNOWN:
        raise SystemExit(f"{place}: {', '.join(sorted(unknown))} is not known to scripts/client_types.py")


def _text(schema: Schema) -> str:
    return " ".join(schema.get("description", "").split())


def _named(schema: Schema) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _used(schemas: Schema, value: Any, found: set[str]) -> set[str]:
    """The names of all that `value` refers to, and of what that refers to."""
    if isinstance(value, Mapping):
        if isinstance(value.get("$ref"), str) and (name := _named(value)) not in found:
            found.add(name)
            _used(schemas, schemas[name], found)
        for one in value.values():
            _used(schemas, one, found)
    elif isinstance(value, list):
        for one in value:
            _used(schemas, one, found)
    return found


def native(document: Schema) -> dict[str, Any]:
    return {path: of for path, of in document["paths"].items() if path.startswith(f"{NATIVE}/")}


def python(document: Schema) -> str:
    used = _used(document["components"]["schemas"], native(document), set())
    said = list(Writer(document, Python()).definitions(used))
    body = "\n".join(f"\n{one}" if one.startswith("class ") else one for one in said)
    imports = "from typing import Any, Literal, NotRequired, TypedDict\n"
    return f'"""{HEADER}"""\n\n{imports}\n{body}'


def typescript(document: Schema) -> str:
    used = _used(document["components"]["schemas"], native(document), set())
    writer = Writer(document, TypeScript())
    return f"// {HEADER}\n\n" + "\n".join([*writer.definitions(used), calls(document, writer)])


def calls(document: Schema, writer: Writer) -> str:
    """For each call its parameters, its body and its answer: what is typed by it needs no more than `fetch`."""
    lines = [block("Every call: what is in its path and its query, its body, and what it answers.").rstrip()]
    lines += ["export interface Calls {"]
    for path, operations in sorted(native(document).items()):
        for method, operation in sorted(operations.items()):
            lines += [f"  {json.dumps(f'{method.upper()} {path}')}: {{"]
            lines += [f"    {part};" for part in _parts(operation, writer)]
            lines += ["  };"]
    return "\n".join([*lines, "}"]) + "\n"


def _parts(operation: Schema, writer: Writer) -> Iterator[str]:
    for place in ("path", "query", "header"):
        found = [one for one in operation.get("parameters", ()) if one["in"] == place]
        said = [
            f"{json.dumps(one['name'])}{'' if one.get('required') else '?'}: {writer.kind(one['schema'], 'Parameter')}"
            for one in found
        ]
        if said:
            mark = "" if any(one.get("required") for one in found) else "?"
            yield f"{place}{mark}: {{ {'; '.join(said)} }}"
    if "requestBody" in operation:
        [content] = operation["requestBody"]["content"].values()
        mark = "" if operation["requestBody"].get("required") else "?"
        yield f"body{mark}: {writer.kind(content['schema'], 'Body')}"
    answers = [
        writer.kind(content["schema"], "Answer")
        for status, response in operation["responses"].items()
        if status < "3"
        for content in response.get("content", {}).values()
    ]
    kinds = dict.fromkeys(kind for answer in answers for kind in answer.split(" | "))
    yield f"answer: {' | '.join(kinds) or 'void'}"


def served() -> dict[str, Any]:
    """The document as an orchestrator of this tree serves it."""
    from orchestrator.api.context import Services
    from orchestrator.app import api

    return api.build(cast(Services, SimpleNamespace(about={"version": "-"}))).openapi()


def written(document: Schema) -> dict[str, str]:
    """The texts of the files, by their paths below `clients/`."""
    return {"python/nestor_types.py": python(document), "typescript/nestor.ts": typescript(document)}


def stale(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """The files in `folder` that say something else, or are not there."""
    paths = {folder / name: text for name, text in texts.items()}
    return [path for path, text in paths.items() if not path.exists() or path.read_text() != text]


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    texts = written(served())
    found = stale(CLIENTS, texts)
    for path in found:
        if arguments:
            print(f"stale: {path.relative_to(CLIENTS.parent)}; run scripts/clients", file=sys.stderr)
        else:
            path.write_text(texts[str(path.relative_to(CLIENTS))])
            print(f"wrote {path.relative_to(CLIENTS.parent)}")
    return 1 if arguments and found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
