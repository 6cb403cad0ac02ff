"""Which `traceparent` is passed on, and what is made where none can be."""

import pytest

from orchestrator.domain import tracing

ID, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SENT = f"00-{ID}-{SPAN}-01"


@pytest.mark.parametrize(
    ("parents", "states", "headers"),
    [
        ([SENT], [], {"traceparent": SENT}),
        ([SENT], ["a=1", "b=2 x"], {"traceparent": SENT, "tracestate": "a=1,b=2 x"}),
        ([SENT], ["a=" + "x" * 511], {"traceparent": SENT}),
        ([SENT], ["a=\x01"], {"traceparent": SENT}),
        ([f"cc-{ID}-{SPAN}-01-more"], [], {"traceparent": SENT}),
        ([f"cc-{ID}-{SPAN}-01"], [], {"traceparent": SENT}),
    ],
)
def test_what_came_is_passed_on_as_it_came(parents: list[str], states: list[str], headers: dict[str, str]) -> None:
    trace = tracing.read(parents, states)
    assert trace is not None
    assert (trace.headers, trace.id) == (headers, ID)
    assert tracing.kept(trace.text) == trace


@pytest.mark.parametrize(
    "parents",
    [
        [],
        [SENT, SENT],
        [""],
        [SENT + "-more"],
        [f"cc-{ID}-{SPAN}-01x"],
        [f"ff-{ID}-{SPAN}-01"],
        [f"00-{'0' * 32}-{SPAN}-01"],
        [f"00-{ID}-{'0' * 16}-01"],
        [SENT.upper()],
        [SENT + "\n"],
    ],
)
def test_what_is_not_of_its_form_is_none(parents: list[str]) -> None:
    assert tracing.read(parents) is None


def test_a_trace_of_our_own_has_the_requests_id_where_that_can_be_one() -> None:
    assert tracing.begun(ID).id == ID
    for other in ("", "mine", "0" * 32):
        begun = tracing.begun(other)
        assert tracing.kept(begun.text) == begun
    assert tracing.headers() != tracing.headers(), "outside of a request each call begins one"
