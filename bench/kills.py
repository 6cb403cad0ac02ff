"""kill -9 in the middle of writes, again and again: is everything that was acknowledged there, and once?

    python bench/kills.py [--kills 1000] [--writers 4] [--seed 1] [--every 20]

A runtime is under a storm of `POST event`, each with an id chosen by the writer, and is killed at a random moment.
After each start every conversation must load, hold each acknowledged message once and no message twice; what was not
acknowledged is sent again under the same id and must then be there once as well. Ends with status 1 on the first fault.
"""

import argparse
import http.client
import random
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from servers import Client, Server, leave, ours


@dataclass
class Conversation:
    """What one writer did to its conversation, and how often each message was found up to `cursor`."""

    id: str
    acknowledged: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    cursor: str | None = None
    found: Counter[str] = field(default_factory=Counter)


class Fault(AssertionError):
    """A promise that was broken."""


def message(event_id: str) -> dict[str, Any]:
    # Lengths differ, so that a kill comes at every place of a line.
    text = event_id + "x" * (int(event_id[:2], 16) * 8)
    return {"role": "user", "content": [{"type": "text", "text": text}], "run": False, "event_id": event_id}


def write(server: Server, conversation: Conversation, ids: random.Random) -> None:
    """Send until the server is gone."""
    client = Client(server)
    while True:
        event_id = str(UUID(int=ids.getrandbits(128), version=4))
        conversation.unsure.append(event_id)
        try:
            client.call("POST", f"/api/conversations/{conversation.id}/events", message(event_id))
        except (OSError, http.client.HTTPException):
            return
        conversation.unsure.remove(event_id)
        conversation.acknowledged.append(event_id)


def storm(server: Server, conversations: list[Conversation], seconds: float, chance: random.Random) -> None:
    writers = [
        threading.Thread(target=write, args=(server, conversation, random.Random(chance.random())), daemon=True)
        for conversation in conversations
    ]
    for writer in writers:
        writer.start()
    time.sleep(seconds)
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    for writer in writers:
        writer.join()


def check(client: Client, conversation: Conversation) -> None:
    """Look at what is new since the last look; the whole is looked at by `check_whole`."""
    for event_id in conversation.unsure:
        client.call("POST", f"/api/conversations/{conversation.id}/events", message(event_id))
    conversation.acknowledged += conversation.unsure
    conversation.unsure.clear()
    info = client.json("GET", f"/api/conversations/{conversation.id}")
    if info["execution_status"] != "idle":
        raise Fault(f"conversation {conversation.id} is {info['execution_status']}")
    read(client, conversation)
    missing = [event_id for event_id in conversation.acknowledged if conversation.found[event_id] != 1]
    if missing:
        raise Fault(f"conversation {conversation.id}: {missing[:3]} found {conversation.found[missing[0]]} times")
    if conversation.acknowledged and info["last_user_message_id"] not in conversation.found:
        raise Fault(f"conversation {conversation.id} does not know its last message")


def read(client: Client, conversation: Conversation) -> None:
    while True:
        at = f"&page_id={conversation.cursor}" if conversation.cursor else ""
        page = client.json("GET", f"/api/conversations/{conversation.id}/events/search?limit=100{at}")
        items = page["items"][1:] if conversation.cursor else page["items"]
        for event in items:
            if event["kind"] == "MessageEvent":
                text = event["llm_message"]["content"][0]["text"]
                if text != message(event["id"])["content"][0]["text"]:
                    raise Fault(f"event {event['id']} came back changed")
                conversation.found[event["id"]] += 1
        if page["items"]:
            conversation.cursor = page["items"][-1]["id"]
        if page["next_page_id"] is None:
            return


def check_whole(client: Client, conversation: Conversation) -> None:
    conversation.cursor, conversation.found = None, Counter()
    check(client, conversation)


def create(client: Client, folder: Path) -> Conversation:
    body = {
        "agent": {"llm": {"model": "openai/scripted", "api_key": "k", "usage_id": "agent"}, "tools": []},
        "workspace": {"working_dir": str(folder / "work")},
    }
    return Conversation(client.json("POST", "/api/conversations", body)["id"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=int, default=20, help="kills between new conversations, and whole looks")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, leave)
    chance = random.Random(options.seed)
    server = Server(ours())
    every: list[Conversation] = []
    try:
        server.start()
        for kill in range(options.kills):
            client = Client(server)
            if kill % options.every == 0:
                for conversation in every:
                    check_whole(client, conversation)
                current = [create(client, server.folder) for _ in range(options.writers)]
                every += current
                print(f"{kill} kills, {len(every)} conversations, {total(every)} messages", flush=True)
            client.close()
            storm(server, current, chance.uniform(0.02, 0.3), chance)
            server.start()
            client = Client(server)
            for conversation in current:
                check(client, conversation)
            if client.json("GET", "/api/conversations/count") != len(every):
                raise Fault("a conversation is gone")
            client.close()
        client = Client(server)
        for conversation in every:
            check_whole(client, conversation)
    except Fault as fault:
        print(f"FAULT: {fault}; all of it is in {server.folder}")
        server.stop(remove=False)
        return 1
    except BaseException:
        server.stop()
        raise
    server.stop()
    print(f"{options.kills} kills: {total(every)} acknowledged messages, none missing, none doubled")
    return 0


def total(conversations: list[Conversation]) -> int:
    return sum(len(conversation.acknowledged) for conversation in conversations)


if __name__ == "__main__":
    sys.exit(main())
