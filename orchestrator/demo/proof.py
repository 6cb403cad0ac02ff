"""What the demo holds a run to: pushed work, the right secret, a passed test, and a wall between the tenants.

Every function answers with the misses it found, in words; an empty list is a proof. `act.py` collects them, and any
one of them makes the demo's exit status 1.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.demo.git_server import Commit, GitCommandFailed, GitServer
from orchestrator.demo.native import Answer, Event, NativeApi
from orchestrator.demo.story import PROOF_FILE, Task, branch, proof
from orchestrator.domain.secrets import SecretText


async def pushed(
    git: GitServer, repository: str, conversation: str, *, secret: SecretText
) -> tuple[Commit | None, list[str]]:
    """The agent's newest commit on its branch in the bare repository, and what is wrong with it."""
    name = branch(conversation)
    commits = await git.commits(repository, name)
    first = await git.commits(repository, "main")
    if len(commits) <= len(first):
        return None, [f"nothing was pushed to {name} of {repository}"]
    try:
        found = (await git.read(repository, name, PROOF_FILE)).strip()
    except GitCommandFailed:
        return commits[0], [f"the pushed commit has no {PROOF_FILE}"]
    if found != proof(secret):
        return commits[0], [f"{PROOF_FILE} was not made from this tenant's secret"]
    return commits[0], []


async def mended(git: GitServer, repository: str, conversation: str, *, task: Task) -> list[str]:
    """Whether the pushed file differs from the wrong one."""
    try:
        text = await git.read(repository, branch(conversation), task.path)
    except GitCommandFailed:
        return [f"the pushed commit has no {task.path}"]
    return [f"{task.path} still has the mistake"] if task.wrong in text else []


def tested(events: Sequence[Event]) -> list[str]:
    """Whether a command with the test in it ended with status 0."""
    observations = [entry.event.get("observation") or {} for entry in events]
    passed = any(
        observation.get("kind") == "TerminalObservation"
        and "unittest" in str(observation.get("command"))
        and observation.get("exit_code") == 0
        for observation in observations
    )
    return [] if passed else ["no run of the test passed"]


def numbered(events: Sequence[Event]) -> list[str]:
    """Whether the log counts 1, 2, 3 without a gap."""
    numbers = [entry.sequence for entry in events]
    return [] if numbers == list(range(1, len(numbers) + 1)) else [f"the event log is numbered {numbers[:20]}"]


def complaint(events: Sequence[Event]) -> str:
    """What the last error event of a run says, as the end of a sentence; empty when there is none."""
    errors = [entry.event for entry in events if entry.event.get("kind") == "ConversationErrorEvent"]
    return f": {errors[-1].get('code')}: {errors[-1].get('detail')}" if errors else ""


async def hidden(stranger: NativeApi, conversation: str) -> tuple[str, list[str]]:
    """What a caller of another tenant sees, and whether it differs from an id that nobody has."""
    unknown = str(uuid.uuid4())
    seen = _without_names(await stranger.look(conversation), conversation)
    expected = _without_names(await stranger.look(unknown), unknown)
    told = "404 not found" if seen.status == 404 else str(seen.status)
    if seen.status != 404:
        return told, [f"another tenant's request was answered {seen.status}, not 404"]
    return told, [] if seen == expected else ["another tenant's 404 differs from that of an unknown conversation"]


def _without_names(answer: Answer, conversation: str) -> Answer:
    """The answer without what differs between any two requests: the id asked for and the request's own."""
    body = answer.body
    if isinstance(body, Mapping):
        kept: dict[str, Any] = {name: value for name, value in body.items() if name not in ("request_id", "instance")}
        return Answer(answer.status, {name: str(value).replace(conversation, "ID") for name, value in kept.items()})
    return answer
