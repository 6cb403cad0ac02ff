"""Which hosts a conversation needs, and how the forward proxy's helper reads them."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain.git import GitProvider
from orchestrator.domain.secrets import SecretText
from orchestrator.nested.wire import Bundle
from orchestrator.services.reach import hosts_of

REACH = Path(__file__).parents[3] / "deploy/egress/reach.py"


def bundle(llm: dict[str, Any] | None = None, *providers: GitProvider) -> Bundle:
    return Bundle({"agent_settings": {"llm": llm or {}}}, providers, {})


@pytest.mark.parametrize(
    ("llm", "hosts"),
    [
        ({}, []),
        ({"model": "openai/gpt-4o"}, ["api.openai.com:443"]),
        ({"model": "claude-sonnet-4"}, ["api.anthropic.com:443"]),
        ({"model": "openai/x", "base_url": "https://llm.example.org/v1"}, ["llm.example.org:443"]),
        ({"model": "openai/x", "base_url": "http://llm.example.org:8000/v1"}, ["llm.example.org:8000"]),
        ({"model": "openai/x", "base_url": "http://[broken"}, []),
        ({"model": "somebody/unknown"}, []),
    ],
)
def test_the_models_host_is_that_of_its_address_or_of_its_provider(llm, hosts):
    assert list(hosts_of(bundle(llm), None, [])) == hosts


def test_the_models_of_a_start_body_are_reached_beside_those_of_the_settings():
    llm = {"model": "openai/x", "base_url": "https://brought.example.org"}
    body = {"agent": {"llm": llm, "condenser": {"llm": {"model": "claude-x"}}}, "workspace": {"model": "gpt-4"}}
    found = hosts_of(bundle({"model": "openai/gpt-4o"}), None, [], start_body=body)
    assert list(found) == ["api.anthropic.com:443", "api.openai.com:443", "brought.example.org:443"]
    assert list(hosts_of(bundle(), None, [], start_body={"agent": None, "agent_settings": 7})) == []


def test_git_hosts_are_those_of_the_providers_and_of_the_repository():
    own = GitProvider("gitlab", SecretText("t"), host="git.example.org:8443")
    found = hosts_of(bundle(None, own), "https://code.example.net/a/b.git", ["pypi.org", "*.example.com:8080"])
    assert list(found) == ["*.example.com:8080", "code.example.net:443", "git.example.org:8443", "pypi.org:443"]
    github = hosts_of(bundle(None, GitProvider("github", SecretText("t"))), "acme/shop", [])
    assert {"github.com:443", "api.github.com:443", "*.githubusercontent.com:443"} <= set(github)


def test_a_model_of_an_inner_part_of_the_settings_counts_too():
    settings = {"agent_settings": {"llm": {"model": "groq/x"}, "condenser": {"llm": {"model": "mistral/y"}}}}
    assert list(hosts_of(Bundle(settings, (), {}), None, [])) == ["api.groq.com:443", "api.mistral.ai:443"]


@pytest.mark.parametrize(
    ("address", "host", "port", "may"),
    [
        ("10.0.0.5", "llm.example.org", "443", True),
        ("10.0.0.5", "LLM.example.org.", "443", True),
        ("10.0.0.5", "llm.example.org", "80", False),
        ("10.0.0.5", "a.b.example.com", "443", True),
        ("10.0.0.5", "example.com", "443", False),
        ("10.0.0.5", "badexample.com", "443", False),
        ("10.0.0.6", "llm.example.org", "443", False),
        ("../10.0.0.5", "llm.example.org", "443", False),
        ("..", "llm.example.org", "443", False),
    ],
)
def test_the_helper_lets_an_address_reach_what_its_file_names(tmp_path, address, host, port, may):
    (tmp_path / "10.0.0.5").write_text("llm.example.org:443\n*.example.com:443\n")
    assert runpy.run_path(str(REACH))["may"](address, host, port, tmp_path) is may
