"""MiniOneRec taught by examples alone and by rewards after them: paired differences at 10 and at 50.

tastemaker recipe run amazon-beauty-rewards amazon-industrial-scientific --runs RUNS
python benchmarks/minionerec.py --runs RUNS             writes benchmarks/results/minionerec.json

A finished run of the recipes is taken from RUNS; what is not there is fitted, which takes hours. Entries of one seed
have learnt the same from examples, so a difference is what rewards made of it. Each user's figure is the mean over the
seeds, and an interval is over users.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import page_table, write

RECIPES = ("amazon-beauty-rewards", "amazon-industrial-scientific")
SYSTEM = "minionerec"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--runs", type=Path, default=None, help="the folder of runs that the recipes were given")
    parser.add_argument("--folder", type=Path, default=None, help="the folder that holds the datasets' files")
    given = parser.parse_args()
    found = {"recipes": {name: differences(name, given.runs, given.folder) for name in given.recipes}}
    write(SYSTEM, found, tables(found))
    for table in tables(found):
        print(*table["rows"], sep="\n")


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        {"recipe": name, "after": label, "metric": metric, **row}
        for name, told in found["recipes"].items()
        for label, metrics in told["differences"].items()
        for metric, row in metrics.items()
    ]
    note = "Differences to examples alone, their 95 % intervals over users, p by a paired permutation test (Holm)."
    return [page_table("MiniOneRec: what rewards add to examples", rows, note)]


def differences(name: str, runs: Path | None, folder: Path | None) -> dict[str, Any]:
    """Every entry with a reward against that without, metric by metric."""
    from tastemaker.evaluate import compare, evaluate
    from tastemaker.lab import recipes as lab
    from tastemaker.train import fit

    recipe = lab.named(name)
    parts = lab.prepare(recipe, folder)
    cases = parts.cases(recipe.part)
    reports, first = [], None
    for entry in (one for one in recipe.systems if one.name == SYSTEM):
        if entry.config.get("reward") == "none":
            first = entry.key
        for seed in entry.seeds:
            run = None if runs is None else lab.run_folder(runs, recipe, entry, seed)
            bundle = fit(entry.name, parts, entry.config, seed=seed, run=run, histories=False, refit=entry.refit)
            report = evaluate(
                bundle,
                parts,
                cases=cases,
                part=recipe.part,
                ks=tuple(recipe.ks),
                metrics=recipe.metrics,
                name=entry.key,
            )
            reports.append(report)
    compared = compare(reports, tested=list(reports[0].values()))
    against = {metric: compared.against(metric, str(first)) for metric in reports[0].values()}
    labels = sorted({label for rows in against.values() for label in rows})
    return {
        "seeds": sorted({seed for one in recipe.systems if one.name == SYSTEM for seed in one.seeds}),
        "differences": {
            label: {metric: {k: round(v, 5) for k, v in rows[label].items()} for metric, rows in against.items()}
            for label in labels
        },
    }


if __name__ == "__main__":
    main()
