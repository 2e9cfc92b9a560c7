"""Commands of the server: serve, loadtest, keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker.cli.common import Json, as_json, note, show, table

if TYPE_CHECKING:
    from tastemaker.serve.runtime import Runtime

DEMO = ("ease", "ials", "itemknn", "popularity", "interecagent")  # what is served where nothing is named
LOCAL = ("127.0.0.1", "localhost", "::1")


def serve(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(help="Bundles, as PATH or NAME=PATH; the first one is the default. None: made-up demo data."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0: a free one.")] = 8000,
    log: Annotated[
        str | None, typer.Option(help="Database of the event log: a path, sqlite:///..., postgresql+psycopg://...")
    ] = None,
    sessions: Annotated[str | None, typer.Option(help="Where sessions are kept: a database or redis://...")] = None,
    keys: Annotated[Path | None, typer.Option(help="File of API keys, made by `tastemaker keys add`.")] = None,
    no_keys: Annotated[
        bool, typer.Option("--no-keys", help="Listen to other machines without asking for keys.")
    ] = False,
    rate: Annotated[
        float | None, typer.Option(min=0, help="Requests a second for one key or address; 0: no limit.")
    ] = None,
    cors: Annotated[list[str] | None, typer.Option(help="An origin whose pages may ask; repeat for more.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Batches at work at once.")] = None,
    pipelines: Annotated[Path | None, typer.Option(help="Folder of pipelines, as JSON.")] = None,
    experiments: Annotated[Path | None, typer.Option(help="File of experiments, as JSON.")] = None,
    chat_url: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible endpoint for systems that converse; default: their rules.")
    ] = None,
    chat_model: Annotated[str | None, typer.Option(help="The model to ask for there.")] = None,
    chat_key_variable: Annotated[str | None, typer.Option(help="Environment variable that holds its key.")] = None,
    reports: Annotated[Path | None, typer.Option(help="What `choose` wrote: its leaderboard is shown.")] = None,
    web: Annotated[bool, typer.Option("--web/--no-web", help="Serve the web app.")] = True,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Write a line for every request.")] = False,
) -> None:
    """Answer requests over HTTP, with a web app, from bundles or from made-up demo data."""
    from tastemaker.types import UsageError, optional

    for package in ("fastapi", "uvicorn", "sqlalchemy"):
        optional(package, extra="serve", why="the server")
    import uvicorn

    from tastemaker.serve.app import create_app
    from tastemaker.serve.runtime import Runtime
    from tastemaker.serve.settings import Settings

    given = {
        "log_url": log,
        "sessions_url": sessions,
        "keys_file": keys,
        "rate": rate,
        "cors": tuple(cors) if cors else None,
        "workers": workers,
        "pipelines_dir": pipelines,
        "experiments_file": experiments,
        "chat_url": chat_url,
        "chat_model": chat_model,
        "chat_key_variable": chat_key_variable,
        "reports_dir": reports,
        "web": web,
    }
    settings = Settings.read(**given)
    if host not in LOCAL and settings.keys_file is None and not no_keys:
        raise UsageError(
            f"{host} can be reached from other machines, and no keys are asked for",
            hint="tastemaker keys add NAME --keys keys.json, then serve with --keys keys.json; or --no-keys",
        )
    runtime = Runtime(settings)
    if bundles:
        _open(runtime, bundles)
    else:
        _demo(runtime)
    runtime.open_pipelines()
    shown = "localhost" if host in ("0.0.0.0", "::") else host
    note(f"serving {', '.join(runtime.shelf)} at http://{shown}:{port} (Ctrl-C ends it)")
    uvicorn.run(
        create_app(runtime),
        host=host,
        port=port,
        log_config=log_config(verbose),
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
    )


def _open(runtime: Runtime, bundles: list[str]) -> None:
    from tastemaker.types import progress

    with progress("opening", len(bundles)) as advance:
        for spelled in bundles:
            name, equals, path = spelled.partition("=")
            runtime.open(path if equals else spelled, name if equals else None)
            advance(1)


def _demo(runtime: Runtime) -> None:
    """A few quick systems on the made-up catalogue."""
    from tastemaker.data import synthetic
    from tastemaker.serve.entry import Entry
    from tastemaker.train import fit
    from tastemaker.types import progress

    data = synthetic(2000, seed=0)
    with progress("fitting on made-up data", len(DEMO)) as advance:
        for name in DEMO:
            entry = Entry(name, fit(name, data), snapshot=data.fingerprint[:12])
            entry.warm()
            runtime.put(entry)
            advance(1)
    note("no bundle was named: this is made-up data; yours: tastemaker choose DATA --budget 30m")


def log_config(verbose: bool) -> dict[str, Any]:
    """One JSON object a line on the error stream; a line for every request where asked for."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "tastemaker.serve.logs.JsonFormatter"}},
        "handlers": {"err": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr", "formatter": "json"}},
        "loggers": {
            "tastemaker": {"handlers": ["err"], "level": "INFO" if verbose else "WARNING", "propagate": False},
            "uvicorn": {"handlers": ["err"], "level": "WARNING", "propagate": False},
        },
    }


def loadtest(
    url: Annotated[str, typer.Argument(help="A server's address, as http://127.0.0.1:8000.")],
    clients: Annotated[str, typer.Option(help="How many ask at once; several runs: 1,16,64.")] = "1,16,64",
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of each run.")] = 10.0,
    k: Annotated[int, typer.Option(min=1, max=500, help="Length of the lists.")] = 10,
    system: Annotated[str | None, typer.Option(help="Which system is asked; default: the server's first.")] = None,
    key: Annotated[str | None, typer.Option(envvar="TASTEMAKER_KEY", help="API key.")] = None,
    json: Json = False,
) -> None:
    """Measure a running server: lists a second, and how long they take, at several loads."""
    from tastemaker.serve.client import Client
    from tastemaker.serve.loadtest import loadtest as measure
    from tastemaker.types import UsageError

    try:
        numbers = [int(part) for part in clients.split(",")]
    except ValueError as error:
        raise UsageError(f"clients are numbers, as 1,16,64; got {clients!r}") from error
    with Client(url, key=key) as client:
        users = client.users(limit=200, system=system)
    more = {} if system is None else {"system": system}
    bodies = [{"user": user, "k": k, **more} for user in users] or [{"k": k, **more}]
    rows = [measure(url.rstrip("/") + "/recommend", bodies, clients=n, seconds=seconds, key=key).row() for n in numbers]
    as_json(rows) if json else show(table(rows, title=f"{url}/recommend, k = {k}"))


keys_app = typer.Typer(help="API keys of a server: make one, list them, take one away.", no_args_is_help=True)
KeyFileOption = Annotated[Path, typer.Option("--keys", help="File of keys.")]


@keys_app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    keys: KeyFileOption = Path("keys.json"),
    scope: Annotated[
        list[str] | None, typer.Option(help="read, feedback, admin; repeat for more; default: read, feedback.")
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0, help="Requests a second; default: the server's limit.")] = None,
) -> None:
    """Make a key and print it, this once: the file holds only its hash."""
    from typing import cast

    from tastemaker.serve.keys import SCOPES, Scope, add_key
    from tastemaker.types import UsageError, nearest

    scopes = scope or ["read", "feedback"]
    for one in scopes:
        if one not in SCOPES:
            raise UsageError(f"there is no scope {one!r}", hint=nearest(one, SCOPES))
    secret = add_key(keys, name, frozenset(cast(list[Scope], scopes)), rate)
    note(f"the key of {name}, which will not be shown again (scopes: {', '.join(scopes)}):")
    typer.echo(secret)


@keys_app.command("list")
def list_(keys: KeyFileOption = Path("keys.json"), json: Json = False) -> None:
    """Names, scopes and limits of the keys."""
    import datetime

    from tastemaker.serve.keys import read_keys

    rows = [
        {
            "name": key.name,
            "scopes": ", ".join(sorted(key.scopes)),
            "rate": "the server's" if key.rate is None else f"{key.rate:g}/s",
            "made": datetime.datetime.fromtimestamp(key.created, datetime.UTC).date().isoformat(),
        }
        for key in read_keys(keys)
    ]
    as_json(rows) if json else show(table(rows))


@keys_app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="Whose key it is.")], keys: KeyFileOption = Path("keys.json")
) -> None:
    """Take a key away; a running server refuses it a second later."""
    from tastemaker.serve.keys import remove_key

    remove_key(keys, name)
    note(f"the key of {name} is gone")
