"""Commands on systems: list, fit, evaluate, compare, recommend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

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
    split_settings,
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


def transforms(json: Json = False) -> None:
    """List the transforms of training: what `tastemaker fit SYSTEM DATA --with NAME` can add to a system."""
    from tastemaker.contracts import TRANSFORMS
    from tastemaker.types import settings as settings_of

    found = [TRANSFORMS.find(name) for name in TRANSFORMS.names()]
    if json:
        as_json([{"name": i.name, "title": i.title, "paper": i.paper} for i in found])
        return
    show(table([{"transform": i.name, "what it is": i.title, "paper": i.paper} for i in found]))
    for i in found:
        rows = [
            {"setting": f"{i.name}.{n}", "default": d, "what it does": s.doc}
            for n, (d, s) in settings_of(i.config).items()
        ]
        show(table(rows, title=i.name))


def fit(
    system: Annotated[str, typer.Argument(help="A name from `tastemaker systems`.")],
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle.")],
    set_: Settings = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Learn from the training part of this split; its valid part says when to stop."),
    ] = None,
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", help="A transform of training by name (see `tastemaker transforms`); repeat for more."),
    ] = None,
    refit: Annotated[
        bool, typer.Option(help="Where events are held back to stop by, train again on all for the epochs found best.")
    ] = True,
    seed: Seed = 0,
    run: Annotated[
        Path | None, typer.Option(help="Folder of checkpoints: a run that was stopped goes on there.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, or bf16 for mixed precision.")] = "fp32",
    compile_: Annotated[bool, typer.Option("--compile", help="Compile the loss; pays on accelerators.")] = False,
    seconds: Annotated[float | None, typer.Option(help="Stop training by gradients after so many seconds.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say every epoch in a line.")] = False,
    histories: Annotated[bool, typer.Option(help="Store users' histories, to answer for them by id.")] = True,
    json: Json = False,
) -> None:
    """Train a system on a dataset and save the bundle. Under `torchrun`, several processes train it together."""
    from tastemaker.train import Hardware, Terminal
    from tastemaker.train import fit as train
    from tastemaker.train.run import is_first_process

    opened: Any = open_data(data)
    if split is not None:
        opened = open_split(opened, split, folder=data, seed=seed)
    settings, changes = split_settings(parse_settings(set_), with_ or [])
    bundle = train(
        system,
        opened,
        settings,
        seed=seed,
        transforms=changes,
        refit=refit,
        run=run,
        histories=histories,
        hardware=Hardware(device, precision, compile_),  # type: ignore[arg-type]
        seconds=seconds,
        loggers=[Terminal(note)] if verbose else (),
    )
    if not is_first_process():
        return
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
