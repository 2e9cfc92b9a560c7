"""Commands on systems: list, fit, evaluate, compare, recommend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tastemaker.cli.common import (
    Data,
    Json,
    Seed,
    Settings,
    SplitName,
    as_json,
    note,
    open_data,
    open_split,
    parse_settings,
    show,
    table,
)

Judge = Annotated[Literal["valid", "test"], typer.Option("--part", help="Which part judges.")]
Ks = Annotated[str, typer.Option("-k", "--ks", help="Cut-offs of the metrics, separated by commas.")]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder written by fit.")]


def systems(
    pattern: Annotated[str, typer.Argument(help="Names to list; * stands for anything.")] = "*",
    for_: Annotated[str | None, typer.Option("--for", help="Only systems this dataset can train.")] = None,
    settings: Annotated[bool, typer.Option("--settings", help="Show each system's settings.")] = False,
    json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table of the README.")] = False,
) -> None:
    """List the systems: what each is, what it learns from, what it needs to answer."""
    from tastemaker.contracts import find, names
    from tastemaker.lab.pages import systems_table
    from tastemaker.types import NotFound, nearest
    from tastemaker.types import settings as settings_of

    found = [find(name) for name in names(pattern)]
    if not found:
        raise NotFound(f"no system matches {pattern!r}", hint=nearest(pattern, names()))
    if for_ is not None:
        data = open_data(for_)
        found = [info for info in found if not info.missing_from(data)]
    if markdown:
        typer.echo(systems_table(found))
        return
    if json:
        as_json(
            [
                {
                    "name": i.name,
                    "family": i.family,
                    "title": i.title,
                    "paper": i.paper,
                    "learns_from": sorted(i.learns_from),
                    "needs": sorted(i.needs),
                    "uses": sorted(i.uses),
                    "capabilities": list(i.capabilities),
                    "settings": {n: {"default": d, "doc": s.doc} for n, (d, s) in settings_of(i.config).items()},
                }
                for i in found
            ]
        )
        return
    rows = [
        {
            "system": i.name,
            "family": i.family,
            "what it is": i.title,
            "learns from": ", ".join(sorted(i.learns_from)) or "nothing",
            "needs": ", ".join(sorted(i.needs)) or "nothing",
            "can": ", ".join(i.capabilities),
        }
        for i in found
    ]
    show(table(rows))
    if settings:
        for i in found:
            known = settings_of(i.config)
            if known:
                show(
                    table(
                        [{"setting": n, "default": d, "what it does": s.doc} for n, (d, s) in known.items()],
                        title=i.name,
                    )
                )


def fit(
    system: Annotated[str, typer.Argument(help="A name from `tastemaker systems`.")],
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle.")],
    set_: Settings = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Learn from the training part of this split only.")
    ] = None,
    seed: Seed = 0,
    run: Annotated[Path | None, typer.Option(help="Folder in which a stopped run is kept and goes on.")] = None,
    histories: Annotated[bool, typer.Option(help="Store users' histories, to answer for them by id.")] = True,
    json: Json = False,
) -> None:
    """Train a system on a dataset and save the bundle."""
    from tastemaker.train import fit as train

    opened = open_data(data)
    if split is not None:
        opened = open_split(opened, split, folder=data, seed=seed).train
    bundle = train(system, opened, parse_settings(set_), seed=seed, run=run, histories=histories)
    bundle.save(out)
    cost = bundle.about["fit"]
    if json:
        as_json({"bundle": str(out), "system": bundle.name, **bundle.about})
        return
    size = sum(file.stat().st_size for file in out.iterdir()) / 2**20
    show(
        f"{bundle.name} fitted in {cost['seconds']:.2f} s, peak memory {cost['peak_mb']:.0f} MB; {out} ({size:.1f} MB)"
    )
    show(f"next: [bold]tastemaker recommend {out} --user ID[/]")


def evaluate(
    bundle: BundlePath,
    data: Data,
    split: SplitName = "leave-one-out",
    part: Judge = "test",
    ks: Ks = "10,20",
    metrics: Annotated[str | None, typer.Option(help="Metrics by name, separated by commas.")] = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the report: a .html, .json or .parquet file.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure a bundle on the held-out part of a split, over the full catalogue."""
    from tastemaker.evaluate import evaluate as measure
    from tastemaker.train import Bundle

    opened = open_data(data)
    parts = open_split(opened, split, folder=data, seed=seed)
    loaded = Bundle.load(bundle)
    report = measure(loaded, parts, part=part, ks=_numbers(ks), metrics=_names(metrics))
    if out is not None:
        report.save(out)
    if json:
        as_json(report.to_json())
    else:
        show(report.table())
        if out is not None:
            show(f"report: {out}")


def compare(
    data: Data,
    systems: Annotated[
        list[str] | None, typer.Argument(help="Names, perhaps with *; default: all the data can train.")
    ] = None,
    split: SplitName = "leave-one-out",
    part: Judge = "test",
    ks: Ks = "10,20",
    seeds: Annotated[int, typer.Option(help="How many seeds each system is fitted with.", min=1)] = 1,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the comparison: a .html or .json file.")
    ] = None,
    json: Json = False,
) -> None:
    """Fit systems on the same training part and compare them on the same held-out cases."""
    from tastemaker.lab.compare import compare_systems

    opened = open_data(data)
    parts = open_split(opened, split, folder=data, seed=seed)
    comparison = compare_systems(
        _chosen(systems, opened), parts, part=part, ks=_numbers(ks), seeds=range(seed, seed + seeds), tell=note
    )
    if out is not None:
        comparison.save(out)
    if json:
        as_json(comparison.to_json())
    else:
        show(comparison.table())
        if out is not None:
            show(f"report: {out}")


def recommend(
    bundle: BundlePath,
    user: Annotated[list[str] | None, typer.Option("--user", "-u", help="A user by id; repeat for more.")] = None,
    history: Annotated[
        str | None, typer.Option(help="Item ids a new user liked, oldest first, separated by commas.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many items.", min=1)] = 10,
    filter: Annotated[str | None, typer.Option(help='Only items for which this holds: "year > 1990".')] = None,  # noqa: A002
    exclude: Annotated[str | None, typer.Option(help="Item ids never to show, separated by commas.")] = None,
    seen: Annotated[bool, typer.Option("--seen", help="Items of the history may come again.")] = False,
    columns: Annotated[str | None, typer.Option(help="Catalogue columns to show, separated by commas.")] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Print recommendations for users by id, or for a history given here."""
    from tastemaker.train import Bundle

    loaded = Bundle.load(bundle)
    answer = loaded.recommend(
        user or None,
        history=None if history is None else [_names(history) or []],
        k=k,
        filter=filter,
        exclude=_names(exclude) or [],
        seen=seen,
        columns=_names(columns),
        seed=seed,
    )
    if json:
        as_json(answer.to_dicts())
    else:
        show(table(answer.drop("request").to_dicts() if user or history else answer.to_dicts()))


def _chosen(patterns: list[str] | None, data: object) -> list[str]:
    from tastemaker.contracts import find, names
    from tastemaker.types import Dataset, NotFound, nearest

    assert isinstance(data, Dataset)
    if not patterns:
        return [name for name in names() if not find(name).missing_from(data)]
    chosen: list[str] = []
    for pattern in patterns:
        matched = names(pattern)
        if not matched:
            raise NotFound(f"no system matches {pattern!r}", hint=nearest(pattern, names()))
        chosen += [name for name in matched if name not in chosen]
    return chosen


def _numbers(text: str) -> tuple[int, ...]:
    from tastemaker.types import UsageError

    try:
        found = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as error:
        raise UsageError(f"cut-offs are whole numbers separated by commas, got {text!r}") from error
    if not found or found[0] < 1:
        raise UsageError(f"cut-offs are at least 1, got {text!r}")
    return found


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]
