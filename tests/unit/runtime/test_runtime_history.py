"""The model's view of a conversation: every call answered, users' words where an API accepts them."""

import itertools
from typing import Any

from runtime.agent.history import History
from runtime.events.actions import TerminalAction, TerminalMetadata, TerminalObservation, ThinkAction
from runtime.events.content import ImageContent, Message, TextContent, ToolCall
from runtime.events.models import (
    ActionEvent,
    AgentErrorEvent,
    ConversationStateUpdateEvent,
    MessageEvent,
    ObservationEvent,
    PauseEvent,
)

_numbers = itertools.count()


def common() -> dict[str, Any]:
    return {"id": f"id-{next(_numbers)}", "timestamp": "2026-01-01T00:00:00.000000"}


def user(text: str) -> MessageEvent:
    message = Message(role="user", content=[TextContent(text=text)])
    return MessageEvent(**common(), source="user", llm_message=message)


def agent(text: str) -> MessageEvent:
    message = Message(role="assistant", content=[TextContent(text=text)])
    return MessageEvent(**common(), source="agent", llm_message=message)


def call(name: str, arguments: str = '{"command": "x"}', thought: str = "") -> ActionEvent:
    return ActionEvent(
        **common(),
        thought=[TextContent(text=thought)] if thought else [],
        action=TerminalAction(command="x"),
        tool_name="terminal",
        tool_call_id=name,
        tool_call=ToolCall(id=name, name="terminal", arguments=arguments),
        llm_response_id="r",
    )


def result(name: str, text: str) -> ObservationEvent:
    observation = TerminalObservation(
        command="x", content=[TextContent(text=text)], metadata=TerminalMetadata(suffix="\n[0]", working_dir="/w")
    )
    return ObservationEvent(**common(), tool_name="terminal", tool_call_id=name, observation=observation, action_id="a")


def error(name: str) -> AgentErrorEvent:
    return AgentErrorEvent(**common(), tool_name="terminal", tool_call_id=name, error="bad")


def history(*events: Any, most: int = 1000) -> History:
    return History(events, most_characters=most)


def roles(made: History) -> list[str]:
    return [message["role"] for message in made.messages()]


def test_parallel_calls_are_one_message_and_separate_answers_are_several() -> None:
    made = history(
        user("u"), call("1", thought="t"), call("2"), result("1", "o"), error("2"), call("3"), result("3", "p")
    )
    messages = made.messages()
    assert roles(made) == ["user", "assistant", "tool", "tool", "assistant", "tool"]
    assert messages[1]["content"] == "t"
    assert [item["id"] for item in messages[1]["tool_calls"]] == ["1", "2"]
    assert messages[2]["content"] == "o\n[0]\n[Working directory: /w]"
    assert messages[3] == {"role": "tool", "tool_call_id": "2", "content": "bad"}


def test_what_users_say_while_tools_run_stands_behind_the_results() -> None:
    made = history(user("a"), call("1"), call("2"), user("b"), result("1", ""), user("c"), result("2", ""))
    assert roles(made) == ["user", "assistant", "tool", "tool", "user", "user"]


def test_what_users_say_while_the_model_is_asked_stands_behind_its_answer() -> None:
    made = history(user("a"))
    made.asking()
    made.add(user("b"))
    assert roles(made) == ["user"]
    made.add(agent("answer"))
    made.answered()
    assert roles(made) == ["user", "assistant", "user"]
    assert made.unanswered == 1


def test_states_and_pauses_are_not_for_the_model() -> None:
    made = history(ConversationStateUpdateEvent(**common(), key="k", value=1), PauseEvent(**common()))
    assert made.messages() == []


def test_broken_arguments_are_not_sent_back() -> None:
    assert history(call("1", arguments="{bro")).messages()[0]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_long_texts_are_cut_in_the_middle() -> None:
    [message] = history(user("a" * 50 + "b" * 60), most=100).messages()
    assert message["content"].startswith("a" * 50)
    assert message["content"].endswith("b" * 50)


def test_images_go_as_parts() -> None:
    content = [TextContent(text="see"), ImageContent(image_urls=["data:image/png;base64,AA=="])]
    event = MessageEvent(**common(), source="user", llm_message=Message(role="user", content=content))
    assert [part["type"] for part in history(event).messages()[0]["content"]] == ["text", "image_url"]


def test_actions_of_other_kinds_need_no_result_of_their_own_kind() -> None:
    event = call("1").model_copy(update={"action": ThinkAction(thought="x")})
    assert roles(history(event, error("1"))) == ["assistant", "tool"]
