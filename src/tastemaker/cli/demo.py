"""The first two minutes: a made-up catalogue, a system chosen for it, recommendations, a report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from tastemaker.cli.common import Seed, note, show, table

SECONDS = 75.0  # of the choice, so that all of it fits into two minutes, the first time too


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the dataset, the bundle and the report.")] = Path(
        "demo"
    ),
    users: Annotated[int, typer.Option(help="How many users to make up.", min=50)] = 1500,
    budget: Annotated[float, typer.Option(help="Seconds for the choice.", min=5)] = SECONDS,
    seed: Seed = 0,
) -> None:
    """Make up a catalogue, choose a system for it, recommend with that, write a report."""
    from tastemaker.data import describe, save_split, split
    from tastemaker.data.synthetic import synthetic
    from tastemaker.lab import choose
    from tastemaker.lab.choice import PAGE
    from tastemaker.lab.pages import LEADERBOARD, choice_table

    data = synthetic(users, seed=seed, name="demo")
    data.save(out / "data")
    show(describe(data).table())
    parts = split(data, "time:0.8,0.1,0.1", seed=seed)
    save_split(parts, out / "data", "main")

    shutil.rmtree(out / "choice", ignore_errors=True)
    choice = choose(parts, budget=budget, out=out / "choice", seed=seed, source=str(out / "data"), tell=note)
    shutil.copyfile(out / "choice" / PAGE, out / "report.html")
    (out / LEADERBOARD).write_text(choice_table(choice), encoding="utf-8")
    bundle = choice.bundle
    _show_people(bundle, seed)
    show(choice.table())
    show(f"report:           {out / 'report.html'}")
    show(f"next:             [bold]{choice.serves.replace('ID', str(bundle.users.series[0]))}[/]")
    show("                  [bold]tastemaker data import YOUR.csv --out my-data && tastemaker choose my-data[/]")


def _show_people(bundle: object, seed: int) -> None:
    """Three users: what they chose lately, and what is recommended to them."""
    from tastemaker.train import Bundle
    from tastemaker.types import generator

    assert isinstance(bundle, Bundle) and bundle.histories is not None
    some = generator(seed, "demo").choice(len(bundle.users), 3, replace=False)
    shown = [c for c in ("title", "genres", "year") if c in bundle.catalogue.columns]
    for number in sorted(some.tolist()):
        user = bundle.users.series[number]
        lately = bundle.histories[number]["item"][-5:]
        rows = bundle.catalogue.select(shown)[lately].to_dicts()
        show(table([_plain(row) for row in rows], title=f"{user} chose lately"))
        answer = bundle.recommend([user], k=5, columns=shown)
        show(
            table([_plain(row) for row in answer.drop("request", "user").to_dicts()], title=f"{bundle.name} recommends")
        )


def _plain(row: dict[str, object]) -> dict[str, object]:
    return {name: ", ".join(map(str, value)) if isinstance(value, list) else value for name, value in row.items()}
