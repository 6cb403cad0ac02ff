"""`nestor doctor`: look at everything that an orchestrator stands on, and say what to change.

It changes no record and ends nothing. Works beside a running orchestrator and without one; what can only be seen on a
running state server is said to be not looked at. `finding.py` is what a check answers; `ground.py` looks at the machine
and the data folder, `state.py` at the state server and the journal, `contents.py` at what is stored there, `events.py`
at the archive of events, `runtimes.py` at the driver and what runs, `tokens.py` at
the keys that tokens are checked by.
"""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

import httpx

from orchestrator.app.doctor import contents, events, ground, runtimes, state, tokens
from orchestrator.app.doctor.finding import Finding, Level
from orchestrator.settings import OrchestratorSettings

_MARKS = {Level.OK: "ok  ", Level.WARNING: "warn", Level.FAILURE: "FAIL"}


async def examine(settings: OrchestratorSettings, *, url: str | None) -> Sequence[Finding]:
    """All findings, in the order in which things depend on each other. `url`: of a running orchestrator."""
    findings = [*ground.look(settings)]
    async with AsyncExitStack() as stack:
        known = await state.look(settings, stack)
        findings += known.findings
        findings += await contents.look(known.store)
        findings += await events.look(settings, known.store)
        findings += await runtimes.look(settings, known, stack)
        findings += await tokens.look(settings, stack)
    if url is not None:
        findings += await _online(url)
    return findings


def told(findings: Sequence[Finding], say: Callable[[str], None]) -> bool:
    """Print them; True when nothing has to be changed."""
    for finding in findings:
        say(f"{_MARKS[finding.level]}  {finding.about:<14} {finding.message}")
        if finding.hint:
            say(f"      {'':<14} -> {finding.hint}")
    failures = sum(finding.level is Level.FAILURE for finding in findings)
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    say(f"\n{len(findings)} checks, {failures} failed, {warnings} to think about")
    return not failures


async def _online(url: str) -> list[Finding]:
    """What a running orchestrator says of itself."""
    about = "orchestrator"
    try:
        async with httpx.AsyncClient(timeout=10, trust_env=False, base_url=url) as http:
            answer = await http.get("/health")
            ready = await http.get("/ready")
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        return [Finding(about, Level.FAILURE, f"{url} does not answer ({type(exc).__name__})", "is it running there?")]
    if answer.status_code == 200 and ready.status_code == 200:
        return [Finding(about, Level.OK, f"{url} is healthy and ready")]
    problems = _problems(answer) or _problems(ready) or [f"it answers {answer.status_code} and {ready.status_code}"]
    return [Finding(about, Level.FAILURE, f"{url}: {problem}", "see docs/operations.md") for problem in problems]


def _problems(answer: httpx.Response) -> list[str]:
    try:
        body = answer.json()
    except ValueError:
        return []
    if not isinstance(body, dict):
        return []
    listed = body.get("problems", [body["reason"]] if "reason" in body else [])
    return [str(one) for one in listed] if isinstance(listed, list) else []
