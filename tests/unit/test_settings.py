"""What an operator chooses: a value that makes no sense is refused by the variable's name, whichever it is."""

import typing
from types import FunctionType

import pytest

from orchestrator.domain.errors import Misconfigured
from orchestrator.settings import OrchestratorSettings, load

NUMBERS = [
    name
    for name, field in OrchestratorSettings.model_fields.items()
    if {int, float} & {field.annotation, *typing.get_args(field.annotation)}
]


def refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    variable = f"NESTOR_{name.upper()}"
    monkeypatch.setenv(variable, value)
    with pytest.raises(Misconfigured, match=variable):
        load({})


@pytest.mark.parametrize("value", ["", "many", "-1", "nan", "inf"])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    refused(monkeypatch, name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("public_url", "nonsense"),
        ("public_url", "https://api.example.org/"),
        ("public_url", "ftp://api.example.org"),
        ("public_url", "https://user:secret@api.example.org"),
        ("runtime_facing_url", "127.0.0.1:8081"),
        ("domain", "https://runtimes.example.org"),
        ("domain", "runtimes.example.org:8080"),
        ("domain", ".example.org"),
        ("runtime_command", 'python "server.py'),
        ("allow_http_hosts", "http://git.example.org"),
        ("allow_hook_hosts", "hooks.example.org/path"),
        ("egress_hosts", "pypi.org files.pythonhosted.org"),
        ("data_dir", ""),
        ("host", " "),
        ("driver", "podman"),
        ("when_full", "wait"),
        ("restart", "always"),
        ("log_format", "xml"),
        ("step_seconds", "clone=5"),
        ("warm_pools", "*3=1"),
        ("allowed_sizes", "3"),
        ("allowed_origins", "https://app.example.org/"),
        ("operator_key", "short"),
    ],
)
def test_a_text_that_is_none_of_its_kind_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    refused(monkeypatch, name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("public_url", "http://127.0.0.1:8080"),
        ("public_url", "https://api.example.org/nestor"),
        ("public_url", "http://[::1]:8080"),
        ("runtime_command", "python -m 'my server' --port {port}"),
        ("allow_hook_hosts", "[::1], hooks.example.org"),
        ("egress_hosts", "pypi.org,*.example.org:8443"),
        ("domain", "runtimes.localhost"),
        ("domain", "agents-1.example.org"),
    ],
)
def test_what_can_be_used_is_taken(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"NESTOR_{name.upper()}", value)
    assert getattr(load({}), name) == value


@pytest.mark.parametrize(
    ("name", "meant"),
    [("NESTOR_RUNTIME_IMAG", "NESTOR_RUNTIME_IMAGE"), ("NESTOR_LEASE_SECOND", "NESTOR_LEASE_SECONDS")],
)
def test_a_misspelt_variable_is_refused_with_the_one_that_was_meant(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    monkeypatch.setenv(name, "x")
    with pytest.raises(Misconfigured, match=f"unknown variable {name}$") as refused:
        load({})
    assert f"did you mean {meant}" in (refused.value.hint or "")
    assert len(refused.value.hint or "") < 300


def test_a_variable_that_is_like_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NESTOR_XYZZY_QQ", "x")
    with pytest.raises(Misconfigured, match="unknown variable NESTOR_XYZZY_QQ") as refused:
        load({})
    assert "docs/configuration.md" in (refused.value.hint or "")


def test_no_group_hides_what_another_one_checks() -> None:
    """Of two validators with one name only the first would be asked."""
    groups = [group for group in OrchestratorSettings.__mro__ if group.__module__.startswith("orchestrator.options.")]
    checks = (classmethod, FunctionType)
    names = [name for group in groups for name, value in vars(group).items() if isinstance(value, checks)]
    assert len(names) > 10
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(
    ("chosen", "most"),
    [
        ({}, "256"),
        ({"version_megabytes": 0}, "0"),
        ({"driver": "docker"}, "256"),
        ({"driver": "docker", "runtime_disk_megabytes": 400}, "50"),
        ({"driver": "docker", "runtime_disk_megabytes": 0, "version_megabytes": 900}, "900"),
        ({"driver": "process", "runtime_disk_megabytes": 400}, "256"),
    ],
)
def test_versions_take_no_more_of_a_disk_than_their_share(chosen: dict[str, typing.Any], most: str) -> None:
    assert load(chosen).runtime_variables == {"NESTOR_RUNTIME_VERSION_MEGABYTES": most}
