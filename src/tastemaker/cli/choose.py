"""The command that chooses a system for a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tastemaker.cli.common import Data, Json, Seed, SplitName, as_json, note, open_data, open_split, show


def choose(
    data: Data,
    budget: Annotated[str, typer.Option(help="Time for everything: 30m, 2h, 90s.")] = "30m",
    memory: Annotated[
        str | None, typer.Option(help="Memory that training may take: 4g, 800m; default: nine tenths of what is free.")
    ] = None,
    metric: Annotated[str, typer.Option(help="What is chosen by.")] = "ndcg@10",
    split: SplitName = "leave-one-out",
    systems: Annotated[
        list[str] | None, typer.Option("--systems", "-s", help="Names, perhaps with *; repeat for more. Default: all.")
    ] = None,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder of the answer and its bundles; the same command goes on there."),
    ] = Path("choice"),
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Find the best system for this data within a budget, what is as good, and what each cheaper one gives up."""
    from tastemaker.lab import choose as search
    from tastemaker.lab.choice import PAGE

    parts = open_split(open_data(data), split, folder=data, seed=seed)
    wanted = [name.strip() for given in systems or [] for name in given.split(",") if name.strip()]
    try:
        found = search(
            parts,
            budget=budget,
            memory=memory,
            metric=metric,
            systems=wanted or None,
            out=out,
            seed=seed,
            source=data,
            tell=note,
        )
    except KeyboardInterrupt:
        note(f"the same command goes on where it stopped, in {out}")
        raise
    if json:
        as_json(found.to_json())
    else:
        show(found.table())
        show(f"report:           {out / PAGE}")
