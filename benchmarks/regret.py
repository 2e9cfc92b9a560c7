"""Regret of bandits on users whose tastes are known, and what an update costs: Diag-LinUCB beside full LinUCB.

python benchmarks/regret.py                     writes benchmarks/results/regret.json
python benchmarks/regret.py --worlds 2 --turns 50

A world is 400 users and 40 items in 4 dimensions, a draw for each seed; a quarter of the items arrive in the first half
of the turns. Systems are fitted on 3,000 lists drawn at random, expect nothing of any item at first (as published), and
play 16 sessions at once with a snapshot every turn, a list of one item a turn, to users who come and go. How much each
explores is chosen on two worlds of its own, from the same number of values each; then all play the other worlds, the
same ones. Intervals are over worlds, bootstrap. Contexts are weights of the 3 nearest of 12 clusters, where a name says
nothing else. An update is timed by the processor, from feedback of 1,000 trials to the snapshot that answers.

The world is one of a few that were looked at. Where much is logged before and new items are given the mean of all
(`prior` above 0), Diag-LinUCB with several clusters a user stays behind greedy full models.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numba
import numpy as np
from common import page_table, write

from tastemaker.evaluate import bootstrap, interact
from tastemaker.index.threads import stay_alone
from tastemaker.simulate import LatentUsers
from tastemaker.train import fit
from tastemaker.types import Columns, Feedback, Jagged, Requests, generator, progress

USERS, ITEMS, DIM, SESSIONS, TRIALS = 400, 40, 4, 16, 3000
TUNING = 2  # worlds on which the amount of exploration is chosen
OWN = {"n_clusters": 12, "nearest": 3, "prior": 0.0}
ARMS = {**OWN, "context": "clusters"}
DIAGONAL = {**OWN, "width": ITEMS}
ALPHAS = {"alpha": (0.25, 0.5, 1.0, 2.0, 4.0)}
SYSTEMS: dict[str, tuple[str, dict[str, Any], dict[str, tuple[float, ...]]]] = {
    "random": ("random", {}, {}),
    "greedy": ("linucb", {**ARMS, "alpha": 0.0}, {}),
    "greedy, diagonal": ("diag-linucb", {**DIAGONAL, "alpha": 0.0}, {}),
    "epsilon-greedy": ("epsilon-greedy", ARMS, {"epsilon": (0.05, 0.1, 0.2, 0.3, 0.4)}),
    "diag-linucb": ("diag-linucb", DIAGONAL, ALPHAS),
    "diag-linucb, one cluster a user": ("diag-linucb", {**DIAGONAL, "nearest": 1}, ALPHAS),
    "linucb": ("linucb", ARMS, ALPHAS),
    "linucb, one cluster a user": ("linucb", {**ARMS, "nearest": 1}, ALPHAS),
    "thompson": ("thompson", ARMS, ALPHAS),
    "linucb, on vectors": ("linucb", {"dim": DIM, "prior": 0.0}, ALPHAS),
}


def played(label: str, seed: int, turns: int, more: dict[str, Any]) -> Any:
    """A report of one system in one world."""
    name, config, _ = SYSTEMS[label]
    world: Any = LatentUsers.drawn(USERS, ITEMS, DIM, seed=seed, fresh=0.25, horizon=turns, slope=5.0, level=-1.5)
    system = fit(name, world.log(TRIALS, seed=seed), {**config, **more}, seed=seed)
    return interact(system, world, turns=turns, sessions=SESSIONS, seeds=(seed,), by="seed")


def chosen(label: str, turns: int, advance: Any) -> dict[str, Any]:
    """How much a system explores: the value with the least regret on the worlds kept for that."""
    [(setting, values)] = SYSTEMS[label][2].items()
    regret = {}
    for value in values:
        regret[value] = np.mean(
            [played(label, 1000 + seed, turns, {setting: value})["regret"] for seed in range(TUNING)]
        )
        advance(TUNING)
    return {setting: min(regret, key=regret.get)}  # type: ignore[arg-type]


def measured(worlds: int, turns: int) -> dict[str, Any]:
    tries = sum(TUNING * len(values) for *_, grid in SYSTEMS.values() for values in grid.values())
    found: dict[str, Any] = {}
    with progress("worlds", tries + worlds * len(SYSTEMS)) as advance:
        for label, (_, _, grid) in SYSTEMS.items():
            settings = chosen(label, turns, advance) if grid else {}
            regrets, rewards = [], []
            for seed in range(worlds):
                report = played(label, seed, turns, settings)
                regrets.append(report["regret"])
                rewards.append(report["reward"])
                advance(1)
            found[label] = {"settings": settings, "regret": regrets, "reward": rewards}
    for one in found.values():
        one["regret mean"], one["regret interval"] = interval(one["regret"])
        behind = np.array(one["regret"]) - np.array(found["linucb"]["regret"])
        one["behind linucb"], one["behind linucb interval"] = interval(behind)
    return found


def interval(values: Any) -> tuple[float, tuple[float, float]]:
    """The mean and its 95% interval."""
    table = np.asarray(values, dtype=np.float64)[:, None]
    low, high = bootstrap(table, level=0.95, resamples=10_000, seed=0)
    return float(table.mean()), (float(low[0]), float(high[0]))


def update_costs(seconds: float) -> list[dict[str, Any]]:
    """Processor microseconds a trial, from feedback to the next snapshot."""
    world: Any = LatentUsers.drawn(USERS, ITEMS, DIM, seed=0)
    log, rng, n = world.log(TRIALS), generator(0, "updates"), 1000
    columns = Columns(
        item=rng.integers(0, ITEMS, n).astype(np.int32),
        kind=np.full(n, "click", dtype=object),
        value=rng.integers(0, 2, n).astype(np.float32),
    )
    told = Feedback(Requests.of_users(rng.integers(0, USERS, n)), events=Jagged(columns, np.arange(n + 1)))
    rows = []
    for clusters in (12, 50):
        row: dict[str, Any] = {"clusters": clusters}
        for name in ("diag-linucb", "linucb"):
            config = {"n_clusters": clusters, "nearest": 3, **({"context": "clusters"} if name == "linucb" else {})}
            system = fit(name, log, config).system
            system.apply(system.update(told))
            spent: list[float] = []
            while sum(spent) < seconds or len(spent) < 5:
                began = time.process_time()
                system.apply(system.update(told))
                spent.append(time.process_time() - began)
            row[f"{name}, us a trial"] = float(np.median(spent)) / n * 1e6
        row["times"] = row["linucb, us a trial"] / row["diag-linucb, us a trial"]
        rows.append(row)
    return rows


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        {
            "policy": label,
            "explores": ", ".join(f"{name} {value:g}" for name, value in one["settings"].items()) or "",
            "regret of a session": f"{one['regret mean']:.2f}",
            "95%": "{:.2f} to {:.2f}".format(*one["regret interval"]),
            "more than linucb's": f"{one['behind linucb']:+.2f}",
            "95% of that": "{:+.2f} to {:+.2f}".format(*one["behind linucb interval"]),
        }
        for label, one in sorted(found["regret"].items(), key=lambda pair: pair[1]["regret mean"])
    ]
    costs = [{key: round(value, 2) for key, value in row.items()} for row in found["updates"]]
    title = f"Regret of {found['turns']} turns, {found['worlds']} worlds of latent users"
    return [
        page_table(
            title, rows, "Paired over worlds; exploration chosen on two other worlds, the same budget for each."
        ),
        page_table(f"Processor time of an update, {ITEMS} items, batches of 1,000 trials", costs),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=10)
    parser.add_argument("--turns", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each update is timed")
    given = parser.parse_args()
    stay_alone()
    numba.set_num_threads(1)
    found = {"worlds": given.worlds, "turns": given.turns, "users": USERS, "items": ITEMS, "sessions": SESSIONS}
    found["regret"], found["updates"] = measured(given.worlds, given.turns), update_costs(given.seconds)
    print(write("regret", found, tables(found)))


if __name__ == "__main__":
    main()
