"""A client program of the public OpenAI package: the agent behind chat completions and responses.

Run by the environment of `scripts/install --sdk`, not by pytest. Arguments: server, session key, model name.
"""

import json
import sys

from openai import APIError, NotFoundError, OpenAI

HEADER = "X-OpenHands-ServerConversation-ID"


def script(*steps: object) -> str:
    return f"SCRIPT:{json.dumps(list(steps))}"


def main() -> None:
    server, key, name = sys.argv[1:]
    client = OpenAI(api_key=key, base_url=f"{server}/v1", timeout=60, max_retries=0)
    said = script({"tool": "terminal", "args": {"command": "echo looked"}}, {"text": "I looked."})
    first = client.chat.completions.with_raw_response.create(
        model=name, messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": said}]
    )
    conversation = first.headers[HEADER]
    second = client.chat.completions.create(
        model=name,
        messages=[{"role": "user", "content": script({"text": "Still here."})}],
        extra_headers={HEADER: conversation},
    )
    pieces = client.chat.completions.create(
        model=name,
        messages=[{"role": "user", "content": script({"text": "Streamed."})}],
        extra_headers={HEADER: conversation},
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(pieces)
    try:
        failing = script({"status": 400, "error": "scripted failure"})
        list(client.chat.completions.create(model=name, messages=[{"role": "user", "content": failing}], stream=True))
        failed = ""
    except APIError as error:
        failed = error.message
    try:
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}])
        unknown = False
    except NotFoundError:
        unknown = True
    response = client.responses.create(model=name, input=script({"text": "A response."}), instructions="Be brief.")
    found = {
        "models": [model.id for model in client.models.list()],
        "first": first.parse().choices[0].message.content,
        "second": second.choices[0].message.content,
        "streamed": "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices),
        "usage": bool(chunks[-1].usage and chunks[-1].usage.total_tokens),
        "failed": failed,
        "unknown": unknown,
        "response": response.output_text,
        "conversation": conversation,
    }
    print("REPORT " + json.dumps(found))  # noqa: T201 - the report


main()
