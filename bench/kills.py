"""kill -9 in the middle of writes, again and again: is everything that was acknowledged there, and once?

    python bench/kills.py [--kills 1000] [--writers 4] [--seed 1] [--every 25] [--folder FOLDER]

A runtime is under a storm of `POST event`, each with an id chosen by the writer, and is killed at a random moment.
After each start every conversation must load, hold each acknowledged message once and no message twice; what was not
acknowledged is sent again under the same id and must then be there once as well. Ends with status 1 on the first fault.

With --folder all of it is kept there: the data, and a ledger (`bench/ledger.py`) of every message before it is sent and
after it was acknowledged. Called again with the same folder, the bench looks at all of it and goes on to --kills, also
when it was killed itself; what it counts is the sum. Do not change --seed, --writers and --every on the way.
"""

import argparse
import http.client
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

from ledger import Conversation, Ledger
from servers import Client, Server, leave, ours


class Fault(AssertionError):
    """A promise that was broken."""


def message(event_id: str) -> dict[str, Any]:
    # Lengths differ, so that a kill comes at every place of a line.
    text = event_id + "x" * (int(event_id[:2], 16) * 8)
    return {"role": "user", "content": [{"type": "text", "text": text}], "run": False, "event_id": event_id}


def write(server: Server, conversation: Conversation, ledger: Ledger, ids: random.Random) -> None:
    """Send until the server is gone."""
    client = Client(server)
    while True:
        event_id = str(UUID(int=ids.getrandbits(128), version=4))
        ledger.sending(conversation, event_id)
        try:
            client.call("POST", f"/api/conversations/{conversation.id}/events", message(event_id))
        except (OSError, http.client.HTTPException):
            return
        ledger.acknowledged(conversation, event_id)


def storm(server: Server, conversations: list[Conversation], ledger: Ledger, chance: random.Random) -> None:
    writers = [
        threading.Thread(target=write, args=(server, conversation, ledger, random.Random(chance.random())), daemon=True)
        for conversation in conversations
    ]
    for writer in writers:
        writer.start()
    time.sleep(chance.uniform(0.02, 0.3))
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    for writer in writers:
        writer.join()


def check(client: Client, conversation: Conversation, ledger: Ledger) -> None:
    """Look at what is new since the last look; the whole is looked at by `check_whole`."""
    for event_id in list(conversation.unsure):
        client.call("POST", f"/api/conversations/{conversation.id}/events", message(event_id))
        ledger.acknowledged(conversation, event_id)
    info = client.json("GET", f"/api/conversations/{conversation.id}")
    if info["execution_status"] != "idle":
        raise Fault(f"conversation {conversation.id} is {info['execution_status']}")
    read(client, conversation)
    wrong = [event_id for event_id in conversation.acknowledged if conversation.found[event_id] != 1]
    if wrong:
        raise Fault(f"conversation {conversation.id}: {wrong[:3]} found {conversation.found[wrong[0]]} times")
    strange = conversation.found.keys() - set(conversation.acknowledged)
    if strange:
        raise Fault(f"conversation {conversation.id} holds {list(strange)[:3]}, which nobody sent")
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


def check_whole(client: Client, conversation: Conversation, ledger: Ledger) -> None:
    conversation.cursor, conversation.found = None, Counter()
    check(client, conversation, ledger)


def create(client: Client, folder: Path, ledger: Ledger, id: UUID) -> None:
    body = {
        "conversation_id": str(id),
        "agent": {"llm": {"model": "openai/scripted", "api_key": "k", "usage_id": "agent"}, "tools": []},
        # The one folder of these that also the account of the agent's shell may write to, where that is another one.
        "workspace": {"working_dir": str(folder / "project")},
    }
    client.json("POST", "/api/conversations", body)
    ledger.created(str(id))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=int, default=25, help="kills between new conversations, and whole looks")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="where all of it is kept, to go on with later")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, leave)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="nestor-kills-"))
    folder.mkdir(parents=True, exist_ok=True)
    server = Server(ours(), folder)
    try:
        with Ledger(folder / "ledger.jsonl") as ledger:
            print(f"seed {options.seed}, {folder}: {ledger.kills} kills before", flush=True)
            run(server, ledger, options)
            told = ledger.told
    except Fault as fault:
        print(f"FAULT: {fault}; all of it is in {folder}")
        return 1
    finally:
        server.stop()
    if options.folder is None:
        shutil.rmtree(folder)
    print(f"seed {options.seed}: {told}; every conversation loads, none missing, none doubled")
    return 0


def run(server: Server, ledger: Ledger, options: argparse.Namespace) -> None:
    server.start()
    ledger.began(server.pid)
    look(server, ledger)
    while ledger.kills < options.kills:
        chance = random.Random(f"{options.seed}/{ledger.runs}/{ledger.kills}")
        number = ledger.kills // options.every * options.writers
        if len(ledger.conversations) < number + options.writers:
            look(server, ledger)
            client = Client(server)
            for place in range(len(ledger.conversations), number + options.writers):
                id = UUID(int=random.Random(f"{options.seed}/c{place}").getrandbits(128), version=4)
                create(client, server.folder, ledger, id)
            client.close()
            print(ledger.told, flush=True)
        current = ledger.conversations[number : number + options.writers]
        storm(server, current, ledger, chance)
        server.start()
        ledger.killed(server.pid)
        client = Client(server)
        for conversation in current:
            check(client, conversation, ledger)
        if client.json("GET", "/api/conversations/count") != len(ledger.conversations):
            raise Fault("a conversation is gone")
        client.close()
    look(server, ledger)


def look(server: Server, ledger: Ledger) -> None:
    """At everything that there is."""
    client = Client(server)
    for conversation in ledger.conversations:
        check_whole(client, conversation, ledger)
    if client.json("GET", "/api/conversations/count") < len(ledger.conversations):
        raise Fault("a conversation is gone")
    client.close()


if __name__ == "__main__":
    sys.exit(main())
