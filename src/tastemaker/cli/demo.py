"""The first two minutes: a made-up catalogue, systems compared, recommendations, a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tastemaker.cli.common import Seed, note, show, table


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the dataset, the bundle and the report.")] = Path(
        "demo"
    ),
    users: Annotated[int, typer.Option(help="How many users to make up.", min=50)] = 1500,
    seed: Seed = 0,
) -> None:
    """Make up a catalogue, compare the systems on it, recommend with the best, write a report."""
    from tastemaker.contracts import find, names
    from tastemaker.data import describe, save_split, split
    from tastemaker.data.synthetic import synthetic
    from tastemaker.lab.compare import compare_systems
    from tastemaker.lab.pages import LEADERBOARD, leaderboard
    from tastemaker.train import Bundle, fit

    data = synthetic(users, seed=seed, name="demo")
    data.save(out / "data")
    show(describe(data).table())
    parts = split(data, "time:0.8", seed=seed)
    save_split(parts, out / "data", "main")

    able = [name for name in names() if not find(name).missing_from(data)]
    comparison = compare_systems(able, parts, ks=(10,), tell=note)
    comparison.save(out / "report.html")
    shown = ("ndcg@10", "recall@10", "coverage@10", "self_information@10")
    (out / LEADERBOARD).write_text(leaderboard(comparison, shown), encoding="utf-8")
    show(comparison.table())

    best = comparison.best
    bundle: Bundle = fit(best, data, seed=seed)
    bundle.save(out / best)
    _show_people(bundle, seed)
    show(f"report:  {out / 'report.html'}")
    show(f"dataset: {out / 'data'}   bundle: {out / best}")
    show(f"next:    [bold]tastemaker recommend {out / best} --user {bundle.users.series[0]}[/]")
    show("         [bold]tastemaker data import YOUR.csv --out my-data && tastemaker compare my-data[/]")


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
