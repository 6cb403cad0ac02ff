"""Which chats are marked, and that a mark changes nothing else."""

import pytest

from runtime.agent.caching import marked, wants_marks

MARK = {"cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("claude-sonnet-4-5", True),
        ("anthropic/claude-sonnet-4-5", True),
        ("bedrock/us.anthropic.claude-x", True),
        ("openrouter/anthropic/claude-x", True),
        ("openai/claude-x", False),
        ("openai/gpt-5", False),
        ("gemini/gemini-3", False),
    ],
)
def test_who_gets_marks(model: str, wanted: bool) -> None:
    assert wants_marks(model) is wanted


def test_the_system_prompt_and_the_end_are_marked_and_the_given_chat_is_not() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    chat = [
        {"role": "system", "content": "be good"},
        {"role": "user", "content": [{"type": "text", "text": "look"}, image]},
    ]
    assert marked(chat) == [
        {"role": "system", "content": [{"type": "text", "text": "be good", **MARK}]},
        {"role": "user", "content": [{"type": "text", "text": "look"}, {**image, **MARK}]},
    ]
    assert chat[0]["content"] == "be good"
    assert image.keys() == {"type", "image_url"}
    tool = {"role": "tool", "tool_call_id": "1", "content": "out"}
    assert marked([tool]) == [{**tool, **MARK}]
    assert marked([{"role": "assistant", "content": None}]) == [{"role": "assistant", "content": None}]
    assert marked([]) == []
