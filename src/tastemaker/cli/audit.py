"""The command that attacks a system and says what its defences are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
)

Judge = Annotated[str, typer.Option("--part", help="Which part real users' accuracy is measured on: valid or test.")]


def audit(
    system: Annotated[str, typer.Argument(help="A name from `tastemaker systems`.")],
    data: Data,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            "--attack",
            "-a",
            help="random, average, popular, bandwagon, segment or dp, perhaps with settings, as "
            "bandwagon:popular=0.3; repeat for more. Default: random, bandwagon and dp.",
        ),
    ] = None,
    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            "-w",
            help="A defence: transforms of training (see `tastemaker transforms`), perhaps with settings, as "
            "vat:epsilon=0.3, or several at once, as apr+vat; repeat for more.",
        ),
    ] = None,
    set_: Settings = None,
    split: SplitName = "ratio:0.7,0.1,0.2",
    part: Judge = "test",
    seeds: Annotated[int, typer.Option(help="How many seeds each attack and defence is tried with.", min=1)] = 5,
    seed: Seed = 0,
    fakes: Annotated[float, typer.Option(help="Fake users for each real one.", min=0.0, max=1.0)] = 0.01,
    targets: Annotated[int, typer.Option(help="Unpopular items that are to be recommended more.", min=1)] = 5,
    size: Annotated[
        int | None, typer.Option(help="Items of a fake profile; default: the mean of real ones.", min=1)
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Length of the lists in which targets are looked for.", min=1)] = 50,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the report; finished runs are kept there, and not made again."),
    ] = None,
    json: Json = False,
) -> None:
    """Attack a system with fake users, with and without defences, and measure what real users are then shown."""
    from tastemaker.audit.poison import Budget
    from tastemaker.audit.run import audit as run
    from tastemaker.types import UsageError

    if part not in ("valid", "test"):
        raise UsageError(f"accuracy is measured on valid or test, got {part!r}")
    parts = open_split(open_data(data), split, folder=data, seed=seed)
    found = run(
        system,
        parts,
        attack or ("random", "bandwagon", "dp"),
        with_ or (),
        range(seed, seed + seeds),
        config=parse_settings(set_),
        budget=Budget(share=fakes, targets=targets, size=size),
        k=k,
        part=part,  # type: ignore[arg-type]
        out=out,
        tell=note,
    )
    if json:
        as_json(found.to_json())
        return
    show(found.table())
    if out is not None:
        show(f"report: {out / 'audit.md'}")
