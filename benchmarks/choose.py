"""The choice against an exhaustive search with ten times its budget: is it within the interval of the best?

python benchmarks/choose.py                         writes benchmarks/results/choose.json
python benchmarks/choose.py --budget 600 --data ml-100k frappe --work folder

The exhaustive search has no rounds: every system gets the same share of all the time, on all of the data, for as many
settings as that allows. Both are judged on the same test cases. Each data set takes eleven budgets; both searches keep
a journal in the work folder, and the same command goes on there. Results of other data stay.
Compiled kernels are cached: where that cache is empty, as after an installation, a choice of a minute spends half of
it on compiling, so run a data set once before it counts.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from common import HERE, data_folder, page_table, write

RECIPES = {
    "ml-100k": "ml-100k-loo",
    "lastfm-hetrec": "lastfm-hetrec",
    "frappe": "frappe",
    "amazon-beauty": "amazon-beauty",
}
OWN = "own.csv"
METRIC = "ndcg@10"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=float, default=600.0, help="seconds of a choice")
    parser.add_argument("--factor", type=float, default=10.0, help="how many times that the exhaustive search has")
    parser.add_argument("--data", nargs="*", default=[*RECIPES, OWN])
    parser.add_argument("--work", type=Path, default=HERE / "results" / "choose-work")
    asked = parser.parse_args()
    found: dict[str, Any] = {"factor": asked.factor, "metric": METRIC}
    stored = HERE / "results" / "choose.json"
    if stored.is_file():
        before = json.loads(stored.read_text())
        if all(before.get(name) == value for name, value in found.items()):
            found = {name: before[name] for name in [*found, *RECIPES, OWN] if name in before}
    for name in asked.data:
        if name in RECIPES and data_folder(name) is None:
            print(f"{name} is not here; set TASTEMAKER_DATA")
            continue
        found[name] = compared(name, asked.work / name, asked.budget, asked.factor)
        write("choose", found, tables(found))
        print(name, found[name])


def compared(name: str, work: Path, budget: float, factor: float) -> dict[str, Any]:
    """Choose, search exhaustively, and hold the two against each other on the test part."""
    from tastemaker.evaluate import compare
    from tastemaker.lab import choose

    parts = prepared(name, work)
    ours = choose(parts, budget=budget, metric=METRIC, out=work / "choice")
    theirs = choose(parts, budget=factor * budget, metric=METRIC, out=work / "all", rounds=1, settings=None)
    best = max(theirs.finalists, key=lambda one: one.report.value(METRIC))
    figure, most = ours.figure, theirs.figure_of(best.name)
    pick = ours.finalists[0].report
    same = pick.label == best.report.label
    pair = [pick] if same and pick.system["config"] == best.report.system["config"] else [pick, best.report]
    p = None
    if len(pair) == 2 and pick.split["cases"] == best.report.split["cases"]:
        p = float(compare(pair, primary=METRIC, tested=[METRIC]).tests["p_permutation"][0])
    return {
        "split": parts.name,
        "budget_s": budget,
        "systems": len(ours.contenders),
        "choice": ours.best,
        "choice_value": round(figure.mean, 5),
        "choice_s": round(ours.seconds, 1),
        "best": best.name,
        "best_value": round(most.mean, 5),
        "best_interval": [round(most.low or 0.0, 5), round(most.high or 0.0, 5)],
        "exhaustive_s": round(theirs.seconds, 1),
        "within": bool(figure.mean >= (most.low or 0.0)),
        "p": p,
        "overrun": round(ours.seconds / budget - 1, 4),
        "trials": {row["system"]: row["settings"] for row in theirs.course()},
    }


def prepared(name: str, work: Path) -> Any:
    """The split: a recipe's, or of a CSV that is written here and read as anybody's would be."""
    from tastemaker.data import read, split
    from tastemaker.lab import recipes

    if name in RECIPES:
        return recipes.prepare(recipes.named(RECIPES[name], HERE.parent / "recipes"), data_folder(name))
    from tastemaker.data.synthetic import synthetic

    made = synthetic(3000, seed=11)
    log = made.interactions().select(
        user=made.user_ids.ids(made.interactions()["user"].to_numpy()),
        item=made.item_ids.ids(made.interactions()["item"].to_numpy()),
        time="time",
        rating="value",
    )
    work.mkdir(parents=True, exist_ok=True)
    log.write_csv(work / OWN)
    return split(read(work / OWN), "time:0.8,0.1,0.1")


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        {
            "data": name,
            "systems": one["systems"],
            "budget s": one["budget_s"],
            "choice": one["choice"],
            METRIC: one["choice_value"],
            "s": one["choice_s"],
            "best of the exhaustive search": one["best"],
            f"its {METRIC}": one["best_value"],
            "from": one["best_interval"][0],
            "to": one["best_interval"][1],
            "its s": one["exhaustive_s"],
            "within": "yes" if one["within"] else "no",
            "p": one["p"],
        }
        for name, one in found.items()
        if isinstance(one, dict)
    ]
    title = f"Choices against an exhaustive search with {found['factor']:g} times the budget"
    return [page_table(title, rows, "Within: the choice is not below the interval of the best on the test part.")]


if __name__ == "__main__":
    main()
