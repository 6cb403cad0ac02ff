"""What an operator writes about spares, read or refused."""

import pytest

from orchestrator.domain.errors import Misconfigured
from orchestrator.domain.spares import Stock, stocks_of
from orchestrator.settings import load


def test_kinds_with_their_numbers_are_read() -> None:
    assert stocks_of(" *2=1:3, registry:5000/tools:1.2@sha256:0a=2 ,registry/tools*4=0:5,") == (
        Stock(None, 2, 1, 3),
        Stock("registry:5000/tools:1.2@sha256:0a", 1, 2, 4),
        Stock("registry/tools", 4, 0, 5),
    )
    assert stocks_of("") == ()


@pytest.mark.parametrize("text", ["2", "*3=1", "*2=3:2", "*2=1,*2=2", "*2=1:x", "a b=1", "*2=1001"])
def test_what_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|minimum|twice"):
        stocks_of(text)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"warm_pools": "*2=1"}, "no request may ask for size 2"),
        ({"warm_pools": "other=1", "driver": "docker"}, "no request may ask for image other"),
        ({"warm_pools": "=1"}, "twice"),
        ({"allowed_sizes": "3"}, "there is no size 3"),
    ],
)
def test_spares_of_what_nobody_may_ask_for_are_refused(variables: dict[str, str], said: str) -> None:
    with pytest.raises(Misconfigured, match=said):
        load(variables)


def test_the_image_of_requests_that_name_none_may_be_named() -> None:
    variables = {"driver": "docker", "allowed_images": "tools", "allowed_sizes": "4"}
    settings = load({**variables, "warm_pool": 2, "warm_pools": "nestor-runtime:latest*4=1,tools=1:9"})
    assert settings.stocks == (Stock(None, 1, 2, 4), Stock(None, 4, 1, 2), Stock("tools", 1, 1, 9))
