"""The command that renews what is served from the server's log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tastemaker.cli.common import Json, as_json, note, open_data, open_split, show


def refresh(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder of what is served.")],
    log: Annotated[
        str | None, typer.Option(help="The server's log: a file, or a database as SQLAlchemy names it.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="What the bundle was fitted on at first; default: the choices it remembers.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="The split whose training part it was fitted on, if it was one.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the new bundle; default: BUNDLE itself.")
    ] = None,
    min_events: Annotated[int, typer.Option(min=2, help="Choices since, without which nothing is tried.")] = 500,
    judged: Annotated[float, typer.Option(min=0.01, max=0.9, help="Share of those, the newest, that judge.")] = 0.2,
    metric: Annotated[str, typer.Option(help="What the old and the new one are compared by.")] = "ndcg@10",
    tolerance: Annotated[float, typer.Option(min=0, max=0.99, help="Share of the old figure that may be lost.")] = 0.05,
    coverage: Annotated[float, typer.Option(min=0, help="Least share of the old one's coverage.")] = 0.8,
    latency: Annotated[float, typer.Option(min=0, help="Most times as long for a list.")] = 2.0,
    size: Annotated[float, typer.Option(min=0, help="Most times as many bytes.")] = 3.0,
    cold: Annotated[bool, typer.Option("--cold", help="Do not begin with the old weights.")] = False,
    repeats: Annotated[bool, typer.Option("--repeats", help="Items may be chosen, and recommended, again.")] = False,
    kind: Annotated[
        list[str] | None, typer.Option(help="A kind of event to learn from; repeat for more. Default: all choices.")
    ] = None,
    context: Annotated[
        list[str] | None, typer.Option(help="A name in the events' context that becomes a column; repeat for more.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="A running server's address: it is told, and goes back if it is not well.")
    ] = None,
    key: Annotated[str | None, typer.Option(envvar="TASTEMAKER_KEY", help="Its key, with the scope admin.")] = None,
    name: Annotated[str | None, typer.Option(help="The name under which it serves the bundle.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how old the bundle is and what has changed; fit nothing.")
    ] = False,
    roll_back: Annotated[
        bool, typer.Option("--roll-back", help="Serve again what was served before the last renewal.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Write the comparison: a .html or .json file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    seed: Annotated[int | None, typer.Option(help="Where every random stream starts; default: as before.")] = None,
    json: Json = False,
) -> None:
    """Fit a served bundle anew on the server's log; the new one takes its place only if it is not worse.

    Exit code 0: promoted (or shown, with --dry-run); 10: the old one stays, and nothing has changed.
    """
    from tastemaker.lab.refresh import refresh as renew
    from tastemaker.lab.refresh import staleness
    from tastemaker.lab.server import Server
    from tastemaker.lab.trial import Limits
    from tastemaker.train import Hardware
    from tastemaker.types import UsageError

    told = None if server is None else Server(server.rstrip("/"), key, name)
    if roll_back:
        _go_back(bundle if out is None else out, told, json)
        return
    if log is None:
        raise UsageError("say where the server's log is", hint="--log tastemaker-log.db, or the database's address")
    if split is not None and data is None:
        raise UsageError("--split is of a dataset: give --data too")
    base: Any = None if data is None else open_data(data)
    if split is not None:
        base = open_split(base, split, folder=str(data), seed=seed or 0)
    of_log: dict[str, Any] = {"log": log, "base": base, "kinds": kind or None, "context": context or ()}
    if dry_run:
        drift = staleness(bundle, **of_log)
        as_json(drift.to_json()) if json else show(drift.table())
        return
    found = renew(
        bundle,
        **of_log,
        out=out,
        min_events=min_events,
        judged=judged,
        metric=metric,
        tolerance=tolerance,
        limits=Limits(coverage, latency, size=size),
        warm=not cold,
        repeats=repeats or None,
        server=told,
        seed=seed,
        hardware=Hardware(device),
        tell=note,
    )
    if report is not None and found.comparison is not None:
        found.comparison.save(report)
    as_json(found.to_json()) if json else show(found.table())
    if found.promoted and not json:
        show(f"next: [bold]tastemaker refresh {found.out} --roll-back[/] if it disappoints")
    if found.exit_code:
        raise typer.Exit(found.exit_code)


def _go_back(out: Path, server: Any, json: bool) -> None:
    """Exchange the bundle with the one before it, on the disk and on a server."""
    from tastemaker.lab import promote
    from tastemaker.types import TastemakerError

    name = None if server is None else server.find(promote.snapshot(out.resolve()))
    back = promote.roll_back(out)
    if server is not None and (why := server.renew(name, promote.snapshot(back))) is not None:
        promote.roll_back(out)
        raise TastemakerError(f"{server.url} is not well with the old bundle, so nothing has changed: {why}")
    answer = {"bundle": str(back), "snapshot": promote.snapshot(back), "previous": str(promote.previous(back))}
    as_json(answer) if json else show(f"{back} is what it was before; what it was until now is {answer['previous']}")
