"""The types for clients are those of the document that is served now, and they are types."""

import typing
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def client_types() -> typing.Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        patch.syspath_prepend(ROOT / "clients" / "python")
        yield import_module("client_types")


@pytest.fixture(scope="module")
def document(client_types: ModuleType) -> dict[str, Any]:
    return dict(client_types.served())


def test_they_are_not_stale(client_types: ModuleType, document: dict[str, Any], tmp_path: Path) -> None:
    texts = client_types.written(document)
    assert client_types.stale(client_types.CLIENTS, texts) == [], "run scripts/clients"
    for name in texts:  # and one that is stale would be seen
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(texts[name].replace("next_page_id", "next_page"))
    assert len(client_types.stale(tmp_path, texts)) == len(texts) == 2


def test_the_python_types_have_the_fields_of_the_document(client_types: ModuleType, document: dict[str, Any]) -> None:
    types = import_module("nestor_types")
    declared = document["components"]["schemas"]
    for name in ("Tenant", "NewApiKey", "Settings", "Conversation", "Runtime", "Operation", "Webhook", "Message"):
        kind = getattr(types, name)
        typing.get_type_hints(kind)  # every name in it is there
        assert kind.__required_keys__ == set(declared[name]["required"]), name
        assert kind.__required_keys__ | kind.__optional_keys__ == set(declared[name]["properties"]), name
    assert typing.get_args(types.Phase) == tuple(declared["Phase"]["enum"])


def test_the_typescript_types_have_every_call(client_types: ModuleType, document: dict[str, Any]) -> None:
    text = (client_types.CLIENTS / "typescript" / "nestor.ts").read_text()
    for path, operations in client_types.native(document).items():
        for method in operations:
            assert f'  "{method.upper()} {path}": {{' in text
    assert "answer: unknown" not in text


def test_a_schema_that_is_not_understood_is_an_error(client_types: ModuleType) -> None:
    schemas = {"Odd": {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}}
    answer = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Odd"}}}}
    odd = {
        "paths": {"/api/v2/odd": {"get": {"responses": {"200": answer}}}},
        "components": {"schemas": schemas},
    }
    for spelled in (client_types.python, client_types.typescript):
        with pytest.raises(SystemExit, match="Odd_a: not is not known"):
            spelled(odd)
