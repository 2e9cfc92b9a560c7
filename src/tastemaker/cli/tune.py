"""The command that searches the settings of one system."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tastemaker.cli.common import Data, Json, Seed, Settings, as_json, open_data, open_split, parse_settings, show


def tune(
    system: Annotated[str, typer.Argument(help="A name from `tastemaker systems`.")],
    data: Data,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", help="Judge trials on the valid part of this split; else on events held back from training."
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Trials in all; default: 20, or what the budget allows.")] = None,
    budget: Annotated[str | None, typer.Option(help="Time for all trials together, as 10m.")] = None,
    metric: Annotated[str, typer.Option(help="What trials are judged by.")] = "ndcg@10",
    storage: Annotated[
        Path | None,
        typer.Option(help="File in which trials are kept: the same command goes on there. Default: beside --out."),
    ] = None,
    set_: Settings = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Fit the best settings and save the bundle.")] = None,
    test: Annotated[bool, typer.Option("--test", help="Judge the best on the test part of the split, once.")] = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Search the settings of a system with Optuna; the defaults are the first trial. The test part is not read."""
    from tastemaker.lab import tune as search
    from tastemaker.types import UsageError

    if test and split is None:
        raise UsageError("--test needs --split: without one there is no test part")
    opened: Any = open_data(data)
    if split is not None:
        opened = open_split(opened, split, folder=data, seed=seed)
    if storage is None and out is not None:
        storage = out.with_name(f"{out.name}.tuning.db")
    found = search(
        system,
        opened,
        trials=trials,
        budget=budget,
        metric=metric,
        storage=storage,
        fixed=parse_settings(set_),
        seed=seed,
    )
    answer = found.to_json()
    if not json:
        show(found.table())
    if out is not None or test:
        bundle = found.fit(opened)
        if out is not None:
            bundle.save(out)
            answer["bundle"] = str(out)
        if test:
            report = found.test(bundle, opened)
            answer["test"] = report.to_json()
            if not json:
                show(report.table())
    if json:
        as_json(answer)
    elif out is not None:
        show(f"next: [bold]tastemaker recommend {out} --user ID[/]")
    else:
        show(f"next: [bold]{found.command(data)}[/]")
