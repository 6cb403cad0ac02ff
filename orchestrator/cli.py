"""`nestor`: start the orchestrator, a runtime, or the demo. Prints for people; `--json` prints for programs."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import anyio
import typer

from orchestrator.domain.errors import NestorError
from orchestrator.domain.secrets import SecretText
from orchestrator.settings import DemoSettings, OrchestratorSettings, load

app = typer.Typer(
    name="nestor",
    help="One API behind which every conversation of every user of every tenant runs in a runtime of its own.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Everything Nestor writes [NESTOR_DATA_DIR]")]
DriverName = Annotated[
    str | None, typer.Option("--driver", help="Where runtimes run: process, docker, fake [NESTOR_DRIVER]")
]


@app.command()
def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on [NESTOR_HOST]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one [NESTOR_PORT]")] = None,
    data_dir: DataDir = None,
    driver: DriverName = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that serve the port together, each a replica [NESTOR_WORKERS]")
    ] = None,
    data_plane: Annotated[
        str | None, typer.Option(help="What carries the bytes: embedded, nginx [NESTOR_DATA_PLANE]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON once ready")] = False,
) -> None:
    """Start the orchestrator and stay."""
    settings = _loaded(host=host, port=port, data_dir=data_dir, driver=driver, data_plane=data_plane, workers=workers)

    def ready(url: str, new_key: SecretText | None, about: Mapping[str, str]) -> None:
        if settings.worker_socket is not None:  # for the process that keeps the workers
            _print_line({"url": url, "operator_key": new_key.open() if new_key else None, "about": dict(about)})
        elif as_json:
            configured = settings.operator_key
            _print_json(url, new_key or (SecretText(configured.get_secret_value()) if configured else None))
        else:
            _print_for_people(url, new_key, about)

    if settings.workers > 1:
        from orchestrator.app import replicas

        _guarded(lambda: replicas.run(settings, ready))
    else:
        from orchestrator.app import server

        _guarded(lambda: server.run(settings, ready))


@app.command()
def demo(
    url: Annotated[str | None, typer.Option(help="An orchestrator that runs already")] = None,
    operator_key: Annotated[str | None, typer.Option(help="Its operator key [NESTOR_OPERATOR_KEY]")] = None,
    data_dir: DataDir = None,
    driver: DriverName = None,
    keep: Annotated[
        bool, typer.Option(help="Keep the data folder that the demo makes; with --url, the conversations too")
    ] = False,
    plain: Annotated[bool, typer.Option(help="Print lines instead of a live display")] = False,
    servers_host: Annotated[
        str | None, typer.Option(help="Address of the demo's model and git server, as runtimes reach it")
    ] = None,
) -> None:
    """Two tenants, three conversations at once, each in a runtime of its own. Status 0 only if all of it happened."""
    from orchestrator.demo.options import DemoOptions, ModelChoice
    from orchestrator.demo.run import run_demo

    settings = _loaded(data_dir=data_dir, driver=driver)
    llm = DemoSettings()
    model = (
        ModelChoice(llm.model, SecretText(llm.api_key.get_secret_value()), llm.base_url)
        if llm.model and llm.api_key
        else None
    )
    configured = settings.operator_key.get_secret_value() if settings.operator_key else None
    key = operator_key or configured
    options = DemoOptions(
        url=url,
        operator_key=SecretText(key) if key else None,
        model=model,
        data_dir=data_dir,
        driver=settings.driver,
        servers_host=servers_host,
        engine=settings.docker_host,
        image=settings.runtime_image,
        keep=keep,
        plain=plain,
    )
    sys.exit(anyio.run(run_demo, options))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def runtime(context: typer.Context) -> None:
    """Start an agent server alone: the same as `python -m runtime`, flags included."""
    os.execv(sys.executable, [sys.executable, "-m", "runtime", *context.args])  # noqa: S606 - no shell is wanted


@app.command()
def doctor(
    data_dir: DataDir = None,
    driver: DriverName = None,
    url: Annotated[str | None, typer.Option(help="A running orchestrator, to be asked as well")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON")] = False,
) -> None:
    """Look at everything that an orchestrator stands on, and say what to change. Status 0 when nothing has to be."""
    from orchestrator.app import doctor

    settings = _loaded(data_dir=data_dir, driver=driver)

    def work() -> None:
        findings = anyio.run(partial(doctor.examine, url=url), settings)
        if as_json:
            typer.echo(json.dumps([vars(finding) for finding in findings]))
        sound = doctor.told(findings, (lambda _line: None) if as_json else typer.echo)
        if not sound:
            raise SystemExit(1)

    _guarded(work)


@app.command()
def netguard(
    gateway: Annotated[str, typer.Option(help="The address that this machine has on the runtimes' bridge")],
    holds: Annotated[Path | None, typer.Option(help="A file that exists while the rules hold")] = None,
    orchestrator: Annotated[
        list[str] | None, typer.Option(help="The address on that bridge of one that is a container; may be repeated")
    ] = None,
) -> None:
    """Hold the network rules of the runtimes' bridge for orchestrators that may not set them, and stay."""
    from orchestrator.app.netguard import guard

    settings = _loaded()
    _guarded(lambda: guard(settings, gateway=gateway, holds=holds, orchestrators=orchestrator or ()))


journal = typer.Typer(help="The journal of every accepted change: check it, restore from it.", no_args_is_help=True)
app.add_typer(journal, name="journal")


@journal.command()
def verify(data_dir: DataDir = None) -> None:
    """Read all of it and check every line's place in its chain. Status 0 only if all of it is in order."""
    from orchestrator.app import journal_commands

    settings = _loaded(data_dir=data_dir)

    def work() -> None:
        if not anyio.run(journal_commands.verify, settings, typer.echo):
            raise SystemExit(1)

    _guarded(work)


@journal.command()
def restore(
    data_dir: DataDir = None,
    driver: DriverName = None,
    replace: Annotated[bool, typer.Option(help="Replace what the state server holds")] = False,
) -> None:
    """Write an empty state server anew, and take over what runs. `nestor up` does the same by itself."""
    from orchestrator.app import journal_commands

    settings = _loaded(data_dir=data_dir, driver=driver)
    _guarded(lambda: anyio.run(partial(journal_commands.restore, replace=replace), settings, typer.echo))


@journal.command(name="begin-anew")
def begin_anew(data_dir: DataDir = None) -> None:
    """Accept that the journal is lost: the next start writes a new one from what the state server holds."""
    from orchestrator.app import journal_commands

    settings = _loaded(data_dir=data_dir)
    _guarded(lambda: anyio.run(journal_commands.begin_anew, settings, typer.echo))


def _loaded(**flags: object) -> OrchestratorSettings:
    try:
        return load(flags)
    except NestorError as exc:
        _fail(exc)


def _guarded(work: Callable[[], None]) -> None:
    """Run; a failure that has a name is told in a line or two and ends with status 1, any other one is a bug."""
    try:
        work()
    except NestorError as exc:
        _fail(exc)
    except BaseExceptionGroup as group:
        named = _only_named(group)
        if named is None:
            raise
        _fail(named)


def _only_named(group: BaseExceptionGroup[BaseException]) -> NestorError | None:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup) and len(found.exceptions) == 1:
        found = found.exceptions[0]
    return found if isinstance(found, NestorError) else None


def _fail(exc: NestorError) -> NoReturn:
    typer.echo(f"nestor: {exc.message}", err=True)
    if exc.hint:
        typer.echo(f"        {exc.hint}", err=True)
    raise SystemExit(1)


def _print_json(url: str, key: SecretText | None) -> None:
    _print_line({"url": url, "operator_key": key.open() if key is not None else None})


def _print_line(values: Mapping[str, object]) -> None:
    typer.echo(json.dumps(values))
    sys.stdout.flush()


def _print_for_people(url: str, new_key: SecretText | None, about: Mapping[str, str]) -> None:
    shown = new_key.open() if new_key is not None else "$NESTOR_OPERATOR_KEY"
    typer.echo(f"Nestor listens on {url}")
    for name in ("driver", "isolation", "hardening", "starts", "server", "durability"):
        if about.get(name):
            typer.echo(f"  {name:<11} {about[name]}")
    if new_key is not None:
        typer.echo(f"  {'operator':<11} {shown}   (shown this once)")
    typer.echo("\nA tenant, a key for it, and a conversation:\n")
    typer.echo(FIRST_CALLS.format(url=url, key=shown))
    sys.stdout.flush()


#: Three calls that work as they are pasted, but for the model's key.
FIRST_CALLS = """\
field() {{ python3 -c "import json,sys; print(json.load(sys.stdin)['$1'])"; }}
TENANT=$(curl -s {url}/api/v2/tenants --oauth2-bearer "{key}" --json '{{"name": "acme"}}' | field id)
KEY=$(curl -s {url}/api/v2/tenants/$TENANT/api-keys --oauth2-bearer "{key}" --json '{{"name": "backend"}}' | field key)
curl -s "{url}/api/v2/conversations?wait=ready" --oauth2-bearer "$KEY" --json '{{"initial_message": "Say hello",
  "settings": {{"agent_settings": {{"llm": {{"model": "openai/gpt-4o", "api_key": "YOUR MODEL KEY"}}}}}}}}'
"""


def main() -> None:
    """The console script."""
    app()
