"""Off-policy estimates on Open Bandit (men's campaign, small), beside what the other policy really earned.

python benchmarks/open_bandit.py                writes benchmarks/results/open_bandit.json

Two policies chose on the same days, 10,000 trials each, with known probabilities: one uniformly, one by Thompson
sampling (bts). From the log of one the value of the other is estimated, and held against the mean reward in the log of
the other itself, which has an interval too. Each seed draws as many trials as there are, with replacement, and its own
folds for the reward model; figures are means over seeds and what lies between the outer 2.5% of them. What bts shows is
taken from its log, as shares of the items at each position. Needs the data set: set TASTEMAKER_DATA.

Ref: Saito, Aihara, Matsutani, Narita, "Open Bandit Dataset and Pipeline", NeurIPS 2021 datasets, arXiv:2008.07146.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import polars as pl
from common import page_table, write
from numpy.typing import NDArray

from tastemaker.data.sources import get
from tastemaker.evaluate import bootstrap, off_policy
from tastemaker.evaluate.off_policy import ONE_SLOT, Statistics
from tastemaker.simulate import Logged
from tastemaker.types import IMPRESSION, Dataset, generator, progress

QUICK = Statistics(resamples=10)  # intervals come from the seeds


def logs() -> tuple[dict[str, Logged], dict[str, NDArray[np.int64]]]:
    """The log of each policy, and at which position each of its trials stood."""
    data: Dataset = get("open-bandit-men")
    found, places = {}, {}
    for policy in ("random", "bts"):
        own = data.with_events(data.events.filter(pl.col("behavior_policy") == policy))
        found[policy] = Logged.of(own)
        shown = (pl.col("kind") == IMPRESSION) & pl.col("propensity").is_not_null()
        places[policy] = own.events.filter(shown)["position"].to_numpy()
        assert len(places[policy]) == len(found[policy])
    return found, places


def shares(log: Logged, places: NDArray[np.int64]) -> NDArray[np.float64]:
    """How often each item was shown at each position [P, A]."""
    counts = np.zeros((int(places.max()) + 1, log.n_items))
    np.add.at(counts, (places, log.items[:, 0]), 1)
    table: NDArray[np.float64] = counts / counts.sum(axis=1, keepdims=True)
    return table


def measured(seeds: int) -> list[dict[str, Any]]:
    found, places = logs()
    rows = []
    with progress("seeds", 2 * seeds) as advance:
        for source, target in (("random", "bts"), ("bts", "random")):
            log, other = found[source], found[target]
            policy = (
                np.full((len(log), log.n_items), 1 / log.n_items)
                if target == "random"
                else shares(other, places[target])[places[source]]
            )
            truth = other.rewards[:, 0]
            low, high = bootstrap(truth[:, None], level=0.95, resamples=10_000, seed=0)
            estimates: dict[str, list[float]] = {name: [] for name in ONE_SLOT}
            effective = []
            for seed in range(seeds):
                drawn = generator(seed, "trials").integers(0, len(log), len(log))
                report = off_policy(log.take(drawn), policy[drawn], seed=seed, statistics=QUICK)
                for name in ONE_SLOT:
                    estimates[name].append(report.value(name))
                effective.append(report.protocol["diagnostics"]["effective"])
                advance(1)
            for name, values in estimates.items():
                ends = np.quantile(values, [0.025, 0.975])
                rows.append(
                    {
                        "from": source,
                        "of": target,
                        "estimator": name,
                        "estimate": float(np.mean(values)),
                        "low": float(ends[0]),
                        "high": float(ends[1]),
                        "earned": float(truth.mean()),
                        "earned low": float(low[0]),
                        "earned high": float(high[0]),
                        "relative error": float(np.mean(np.abs(np.array(values) / truth.mean() - 1))),
                        "trials in effect": float(np.mean(effective)),
                        "values": values,
                    }
                )
    return rows


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        {
            "value of": one["of"],
            "from the log of": one["from"],
            "estimator": one["estimator"],
            "clicks of 1,000": f"{1000 * one['estimate']:.2f}",
            "95%": f"{1000 * one['low']:.2f} to {1000 * one['high']:.2f}",
            "earned": f"{1000 * one['earned']:.2f} ({1000 * one['earned low']:.2f} to {1000 * one['earned high']:.2f})",
            "relative error": f"{one['relative error']:.0%}",
            "trials in effect": f"{one['trials in effect']:,.0f}",
        }
        for one in found["estimates"]
    ]
    note = f"{found['seeds']} seeds, each a draw of the log's trials with replacement."
    return [page_table("Off-policy estimates, Open Bandit (men, small)", rows, note)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50)
    given = parser.parse_args()
    found = {"seeds": given.seeds, "estimates": measured(given.seeds)}
    print(write("open_bandit", found, tables(found)))


if __name__ == "__main__":
    main()
