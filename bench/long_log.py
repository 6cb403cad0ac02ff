"""Make the log of a conversation long, behind the back of a runtime that is not running (`bench/runtime.py` calls it).

    python -P bench/long_log.py FOLDER EVENTS

FOLDER is the conversation's. The events are written through the runtime's own log.
"""

import sys
from pathlib import Path
from uuid import uuid4

from runtime.events.content import Message, TextContent
from runtime.events.log import EventLog
from runtime.events.models import MessageEvent


def main() -> None:
    log = EventLog(Path(sys.argv[1]))
    message = Message(role="user", content=[TextContent(text="x" * 200)])
    while len(log) < int(sys.argv[2]):
        log.append(MessageEvent(id=str(uuid4()), timestamp=log.next_timestamp(), source="user", llm_message=message))
    log.close()


if __name__ == "__main__":
    main()
