"""Commands on data: import, describe, fetch, synthetic, filter, split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tastemaker.cli.common import Data, Json, Seed, as_json, note, open_data, show, table

app = typer.Typer(help="Datasets: import, describe, fetch, make up, filter and split.", no_args_is_help=True)
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the dataset.")]


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="A file, a folder, or with --url a database query.")],
    out: Out,
    format: Annotated[str | None, typer.Option(help="csv, parquet, jsonl, arrow, sql, recbole, adjacency.")] = None,  # noqa: A002
    user: Annotated[str | None, typer.Option(help="Column of the user.")] = None,
    item: Annotated[str | None, typer.Option(help="Column of the item.")] = None,
    time: Annotated[str | None, typer.Option(help="Column of the time.")] = None,
    value: Annotated[str | None, typer.Option(help="Column of the rating, count or amount.")] = None,
    kind: Annotated[str | None, typer.Option(help="Column that says what happened.")] = None,
    items: Annotated[Path | None, typer.Option(help="File of the catalogue, one row an item.")] = None,
    users: Annotated[Path | None, typer.Option(help="File of the users, one row a user.")] = None,
    duplicates: Annotated[
        Literal["keep", "first", "last", "sum", "max", "error"],
        typer.Option(help="Same user and item again: keep, first, last, sum, max or error."),
    ] = "keep",
    url: Annotated[str | None, typer.Option(help="Database, as SQLAlchemy names it; SOURCE is then a query.")] = None,
    on_bad: Annotated[
        Literal["error", "skip"], typer.Option("--on-bad", help="Rows that cannot be used: error, or skip (and count).")
    ] = "error",
    name: Annotated[str | None, typer.Option(help="Name of the dataset; default: that of the folder.")] = None,
    json: Json = False,
) -> None:
    """Read a table of events, check every row, and save a dataset."""
    from tastemaker.data import read

    data = read(
        source,
        format=format,
        user=user,
        item=item,
        time=time,
        value=value,
        kind=kind,
        items=items,
        users=users,
        duplicates=duplicates,
        url=url,
        on_bad=on_bad,
        name=name or out.name,
    )
    data.save(out)
    if json:
        as_json(
            {
                "dataset": str(out),
                "users": data.n_users,
                "items": data.n_items,
                "events": data.n_events,
                "notes": dict(data.notes),
            }
        )
        return
    show(f"{data!r} in {out}")
    for topic, text in data.notes.items():
        note(f"{topic}: {text}")
    show(f"next: [bold]tastemaker data describe {out}[/] or [bold]tastemaker compare {out}[/]")


@app.command()
def describe(
    data: Data,
    plot: Annotated[Path | None, typer.Option(help="Write the plots: an .html, .png or .svg file.")] = None,
    json: Json = False,
) -> None:
    """Counts, density, long tail, time span, cold shares, columns."""
    from tastemaker.data import describe as describe_data

    found = describe_data(open_data(data))
    if plot is not None:
        found.plot(plot)
    if json:
        as_json(found.to_json())
    else:
        show(found.table())


@app.command()
def fetch(
    name: Annotated[str | None, typer.Argument(help="Name of a public dataset; leave it out to list them.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the dataset.")] = None,
    folder: Annotated[Path | None, typer.Option(help="A folder that already holds the files.")] = None,
    json: Json = False,
) -> None:
    """Fetch a public dataset, or list those there are."""
    from tastemaker.data.sources import get, sources
    from tastemaker.types import UsageError

    if name is None:
        rows = [{"name": s.name, "what it is": s.title, "terms": s.terms} for s in sources()]
        as_json(list(rows)) if json else show(table(list(rows)))
        return
    if out is None:
        raise UsageError("say where the dataset goes: --out FOLDER")
    data = get(name, folder=folder)
    data.save(out)
    show(f"{data!r} in {out}")


@app.command()
def synthetic(
    out: Out,
    users: Annotated[int, typer.Option(help="How many users.", min=10)] = 1000,
    items: Annotated[int | None, typer.Option(help="How many items; default: in proportion.", min=20)] = None,
    seed: Seed = 0,
) -> None:
    """Make up a catalogue and its users, with known truth (which is not in the dataset)."""
    from tastemaker.data.synthetic import World

    World(n_users=users, n_items=items, seed=seed).save(out)
    show(f"{users:,} users in {out}")
    show(f"next: [bold]tastemaker compare {out}[/]")


@app.command()
def filter(  # noqa: A001 - the word a user looks for
    data: Data,
    out: Out,
    core: Annotated[int | None, typer.Option(help="k of an iterative k-core over users and items.", min=1)] = None,
    rating: Annotated[float | None, typer.Option(help="Keep events of at least this value.")] = None,
    kinds: Annotated[str | None, typer.Option(help="Keep these kinds of event, separated by commas.")] = None,
) -> None:
    """Keep part of a dataset: a rating threshold, kinds of event, a k-core (in this order)."""
    from tastemaker.data import filters
    from tastemaker.types import UsageError

    kept = open_data(data)
    if rating is None and kinds is None and core is None:
        raise UsageError("say what to keep: --core, --rating or --kinds")
    if rating is not None:
        kept = filters.rating_at_least(kept, rating)
    if kinds is not None:
        kept = filters.of_kinds(kept, [k.strip() for k in kinds.split(",")])
    if core is not None:
        kept = filters.k_core(kept, core)
    kept.save(out)
    show(f"{kept!r} in {out}")


@app.command()
def split(
    data: Data,
    kind: Annotated[str, typer.Argument(help="leave-one-out, leave-k:5, ratio:0.8,0.1,0.1, time:0.8, session, ...")],
    name: Annotated[str, typer.Option("--name", "-n", help="Name the split is loaded by.")] = "main",
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Decide what systems learn from and what judges them, and save it beside the dataset."""
    from tastemaker.data import save_split
    from tastemaker.data import split as make
    from tastemaker.types import DATASET_FILE, UsageError

    if not (Path(data) / DATASET_FILE).is_file():
        raise UsageError(
            f"a split is saved beside a dataset, and {data} is no dataset folder", hint="import or fetch it first"
        )
    opened = open_data(data)
    made = make(opened, kind, seed=seed)
    save_split(made, Path(data), name)
    sizes = made.sizes
    if json:
        as_json({"name": name, "spec": dict(made.spec), "events": sizes, "warnings": list(made.warnings)})
        return
    show(f"split {name}: " + ", ".join(f"{part} {size:,}" for part, size in sizes.items()))
    for warning in made.warnings:
        note(f"[yellow]warning:[/] {warning}")
