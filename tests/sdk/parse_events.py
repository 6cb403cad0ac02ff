"""Parses events with the public client's own models: JSON lines on standard input; says what it could not parse."""

import json
import sys

import openhands.tools.preset.default  # noqa: F401 - registers the tools' actions and observations
from openhands.sdk.event import Event
from openhands.tools.file_editor import definition as _file_editor  # noqa: F401
from openhands.tools.task_tracker import definition as _task_tracker  # noqa: F401
from openhands.tools.terminal import definition as _terminal  # noqa: F401
from pydantic import TypeAdapter


def without_nulls(value):
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


adapter = TypeAdapter(Event)
problems = []
count = 0
for line in sys.stdin:
    count += 1
    try:
        parsed = adapter.validate_json(line)
    except ValueError as error:
        problems.append(str(error)[:500])
        continue
    sent = without_nulls(json.loads(line))
    back = without_nulls(parsed.model_dump(mode="json"))
    if sent != back:
        problems.append(f"{sent['kind']} differs: {json.dumps(sent)[:300]} / {json.dumps(back)[:300]}")
print("REPORT " + json.dumps({"count": count, "problems": problems}))  # noqa: T201 - the report
