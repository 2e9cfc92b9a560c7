"""Experiments on simulated users whose tastes are known: what they find, how soon, and how often they cry wolf.

python benchmarks/live.py                     writes benchmarks/results/live.json
python benchmarks/live.py --nulls 200 --races 5
python benchmarks/live.py --only costs        keeps the other figures that are stored

A user looks at place p of a list with chance (p + 1)^-0.7 and clicks what he sees and likes; users come back, some of
them often. A system ranks thirty candidates by the user's true liking plus noise. Better is what has less noise.

False alarms: experiments of two systems with equal noise, whose lists differ all the same. The p-value after every
list counts, so one experiment is thousands of looks. Beside it stands what a fixed-sample test says if it is asked
after every list, as people do.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from common import RESULTS, page_table, peak_mb, write
from scipy import stats

from tastemaker.evaluate.sequential import Sums
from tastemaker.serve.analysis import analyse
from tastemaker.serve.experiments import MIXED, Experiment, Experiments, assign, read_experiment
from tastemaker.serve.interleave import team_draft
from tastemaker.types import Slates, generator, mix

ITEMS, WIDTH, CANDIDATES, K = 60, 8, 30, 10
SECOND = 1_000_000
ALPHA = 0.05


@dataclass(frozen=True)
class World:
    """Users who come back unequally often; `persistent`: share of a system's noise that stays from visit to visit."""

    n_users: int = 600
    persistent: float = 0.5
    seed: int = 0

    def visits(self, n: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray, np.ndarray]:
        """A generator, the visitors [n], the candidates [n, C], and how much each is liked [n, C]."""
        rng = generator(self.seed, "live")
        tastes, items = rng.normal(size=(self.n_users, WIDTH)), rng.normal(size=(ITEMS, WIDTH)) / np.sqrt(WIDTH)
        activity = rng.gamma(0.7, size=self.n_users) + 0.05
        users = rng.choice(self.n_users, size=n, p=activity / activity.sum())
        candidates = np.argsort(rng.random((n, ITEMS), dtype=np.float32), axis=1)[:, :CANDIDATES]
        liking = (tastes @ items.T)[users[:, None], candidates]
        return rng, users, candidates, liking

    def lists(self, rng: np.random.Generator, users: Any, candidates: Any, liking: Any, noise: float) -> Slates:
        """What a system answers: the K best candidates by liking and noise."""
        own = rng.normal(size=(self.n_users, ITEMS)).astype(np.float32)[users[:, None], candidates]
        fresh = rng.standard_normal(liking.shape, dtype=np.float32)
        scores = liking + noise * (np.sqrt(self.persistent) * own + np.sqrt(1 - self.persistent) * fresh)
        best = np.argsort(-scores, axis=1)[:, :K]
        return Slates(np.take_along_axis(candidates, best, 1), np.take_along_axis(scores, best, 1))

    def clicks(self, rng: np.random.Generator, shown: Any, candidates: Any, liking: Any) -> np.ndarray:
        """Who clicks what [n, K]."""
        table = np.zeros((len(shown), ITEMS), dtype=np.float32)
        np.put_along_axis(table, candidates, 1 / (1 + np.exp(1.5 - 1.5 * liking)).astype(np.float32), 1)
        liked = np.take_along_axis(table, shown, 1)
        return rng.random(shown.shape) < liked * (np.arange(K) + 1.0) ** -0.7


def experiment(kind: str, unit: str, **more: Any) -> Experiment:
    given = {
        "name": "e", "kind": kind, "unit": unit, "control": "old", "window": 60.0, "most_lists": 1000, "alpha": ALPHA,
        "arms": {"old": {"serve": "old"}, "new": {"serve": "new"}}, **more,
    }  # fmt: skip
    return read_experiment(given).start(0)


def run(one: Experiment, world: World, n: int, noise: tuple[float, float], lost: float = 0.0) -> tuple[Any, Any, Any]:
    """The log of n visits, a second apart: events, lists, and the clicks [n, K].

    noise: of the old and the new system; lost: share of the new arm's clicks that never happen.
    """
    rng, users, candidates, liking = world.visits(n)
    old, new = (world.lists(rng, users, candidates, liking, sd) for sd in noise)
    names = np.array([f"u{u}" for u in range(world.n_users)])[users]
    trace = np.full(n, "{}", dtype=object)
    if one.kind == "interleave":
        slates, teams = team_draft([new, old], K, mix(np.arange(n), world.seed))  # as one.names: new, old
        shown, arm = slates.items, np.full(n, MIXED)
        trace = np.array([json.dumps({"teams": row}) for row in teams.tolist()], dtype=object)
    else:
        number = assign(names, one)
        shown = np.where((number == one.names.index("new"))[:, None], new.items, old.items)
        arm = np.array(one.names)[number]
    clicks = world.clicks(rng, shown, candidates, liking)
    if lost:
        clicks &= ~((arm == "new")[:, None] & (rng.random(clicks.shape) < lost))
    times = np.arange(n) * SECOND
    slate = np.char.add("s", np.arange(n).astype(str))
    lists = pl.DataFrame({
        "slate": slate, "time": times, "user": names, "session": names, "experiment": np.full(n, "e"), "arm": arm,
        "items": pl.Series(shown.astype(np.int64)).arr.to_list().cast(pl.List(pl.String)),
        "trace": pl.Series(trace.tolist(), dtype=pl.String),
    })  # fmt: skip
    row, place = np.nonzero(clicks)
    events = pl.DataFrame({
        "id": np.arange(len(row)), "time": times[row] + SECOND, "kind": np.full(len(row), "click"), "user": names[row],
        "item": shown[row, place].astype(str), "value": np.ones(len(row)), "slate": slate[row],
    })  # fmt: skip
    return events, lists, clicks


def naive(clicks: np.ndarray, arm: np.ndarray) -> bool:
    """Whether a test of two means, of lists with a click, ever says p < alpha if it is asked after every list."""
    y = clicks.any(axis=1).astype(float)
    one, other = (Sums.of(y, where=arm == name) for name in ("new", "old"))
    ready = (np.minimum(one.n, other.n) >= 50) & (one.variance + other.variance > 0)
    error = np.sqrt(np.where(ready, one.variance / np.maximum(one.n, 1) + other.variance / np.maximum(other.n, 1), 1.0))
    z = np.where(ready, one.ratio - other.ratio, 0.0) / error
    return bool((np.abs(z) > stats.norm.isf(ALPHA / 2)).any())


def rate(hits: int, n: int) -> dict[str, Any]:
    """A share of n with its exact binomial interval."""
    low, high = stats.binomtest(hits, n).proportion_ci(method="exact")
    return {"alarms": hits, "of": n, "rate": round(hits / n, 4), "low": round(low, 4), "high": round(high, 4)}


def false_alarms(nulls: int, n: int) -> dict[str, Any]:
    """How often each test finds what is not there, over simulated experiments that are watched after every list."""
    end, equal, loss = 2 * n * SECOND, (1.0, 1.0), 0.1
    clicks, clicked = {"detect": 0.1}, {"detect": 0.1, "of": "any"}
    per_list = experiment("ab", "user", primary=clicks)
    per_user = experiment("ab", "user", primary={**clicks, "per": "user"}, horizon=n / 4)
    guarded = experiment("ab", "user", primary=clicked, guardrails=[{**clicks, "tolerate": loss}])
    by_request = experiment("ab", "request", primary=clicked)
    mixed = experiment("interleave", "request")
    by_user = experiment("interleave", "user")

    def found(seed: int) -> dict[str, bool]:
        world, calm = World(seed=seed), World(300, persistent=0.0, seed=seed)
        salt = {"salt": str(seed)}
        events, lists, _ = run(per_list.model_copy(update=salt), world, n, equal)
        first, second = (analyse(one, events, lists, now=end) for one in (per_list, per_user))
        events, lists, _ = run(guarded.model_copy(update=salt), world, n, equal, lost=loss)
        third = analyse(guarded, events, lists, now=end)
        events, lists, shown = run_by_request(by_request.model_copy(update=salt), calm, n)
        fourth = analyse(by_request, events, lists, now=end)
        fifth = analyse(mixed, *run(mixed, calm, n, equal)[:2], now=end)
        sixth = analyse(by_user, *run(by_user, World(300, persistent=1.0, seed=seed), n, equal)[:2], now=end)
        return {
            "A/B: clicks per list, users come back": first.contrasts[0].p <= ALPHA,
            "A/B: clicks per user": second.contrasts[0].p <= ALPHA,
            "A/B: lists clicked, dealt list by list": fourth.contrasts[0].p <= ALPHA,
            "A/B: guardrail harmed, loss just as tolerated": third.guardrails[0].state == "harmed",
            "A/B: guardrail fine, loss just as tolerated": third.guardrails[0].state == "fine",
            "A/B: split of users": first.split.p <= ALPHA,
            "interleaving, list by list": fifth.contrasts[0].p <= ALPHA,
            "interleaving by user, tastes that last": sixth.contrasts[0].p <= ALPHA,
            "fixed-sample test after every list": naive(shown, lists["arm"].to_numpy()),
        }

    hits: dict[str, int] = {}
    for seed in range(nulls):
        for name, alarm in found(seed).items():
            hits[name] = hits.get(name, 0) + alarm
    return {name: rate(count, nulls) for name, count in hits.items()}


def run_by_request(one: Experiment, world: World, n: int) -> tuple[Any, Any, Any]:
    """As `run`, each list dealt by itself."""
    events, lists, clicks = run(one.model_copy(update={"unit": "user"}), world, n, (1.0, 1.0))
    arm = np.array(one.names)[assign(lists["slate"], one)]  # equal noise: which arm a list is said to be of is free
    return events, lists.with_columns(arm=arm), clicks


def races(n_races: int, n: int, noise: tuple[float, float]) -> list[dict[str, Any]]:
    """How many requests it takes until the better system is found, over worlds."""
    kinds = {
        "A/B by user": experiment("ab", "user", primary={"detect": 0.1}),
        "interleaving by user": experiment("interleave", "user", primary={"detect": 0.1}),
        "interleaving, list by list": experiment("interleave", "request", primary={"detect": 0.1}),
    }
    rows = []
    for name, one in kinds.items():
        took, wrong, lifts = [], 0, []
        for seed in range(n_races):
            world = World(n_users=n // 10, seed=10_000 + seed)
            events, lists, _ = run(one.model_copy(update={"salt": str(seed)}), world, n, noise)
            result = analyse(one, events, lists, now=2 * n * SECOND)
            contrast = result.contrasts[0]
            wrong += contrast.verdict == "worse"
            took.append(contrast.since // SECOND - 60 if contrast.verdict == "better" and contrast.since else None)
            lifts.append(contrast.lift if one.kind == "ab" else contrast.difference + 0.5)
        done = sorted(t for t in took if t is not None)
        rows.append({
            "test": name, "found": len(done), "of": n_races, "wrong": wrong, "most": n,
            "requests, median": int(np.median(done)) if done else None,
            "fewest": done[0] if done else None, "most needed": done[-1] if done else None,
            "effect": round(float(np.mean(lifts)), 4),
        })  # fmt: skip
    return rows


def costs(n: int) -> dict[str, Any]:
    """Processor seconds of what a server does, over all its threads: the machine may be busy with other things."""

    def best(function: Any) -> float:
        function()
        seconds = []
        for _ in range(3):
            start = time.process_time()
            function()
            seconds.append(time.process_time() - start)
        return min(seconds)

    one, both = experiment("ab", "user"), experiment("interleave", "request")
    registry = Experiments([one])
    ids = pl.Series([f"user-{u}" for u in range(n)])
    rng = generator(0, "costs")
    arms = [Slates(np.argsort(rng.random((20_000, 40)), axis=1)[:, :K], np.zeros((20_000, K))) for _ in range(2)]
    asked = [f"user-{u}" for u in range(2000)]
    found = {
        "one decision, microseconds": round(best(lambda: [registry.decide("old", user=u) for u in asked]) / 2e-3, 1),
        "assign a batch, ids a second": round(n / best(lambda: assign(ids, one))),
        "interleave two lists of ten, lists a second": round(
            20_000 / best(lambda: team_draft(arms, K, np.arange(20_000)))
        ),
    }
    for name, which in (("A/B", one), ("interleaving", both)):
        events, lists, _ = run(which, World(n_users=n // 10), n, (1.0, 0.8))
        took = best(partial(analyse, which, events, lists, now=2 * n * SECOND))
        found[f"analyse {name} of {n:,} lists and {events.height:,} clicks, s"] = round(took, 3)
    return {**found, "peak MB": round(peak_mb(), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nulls", type=int, default=1000)
    parser.add_argument("--lists", type=int, default=2500, help="of an experiment without a difference")
    parser.add_argument("--races", type=int, default=20)
    parser.add_argument("--longest", type=int, default=60_000, help="requests a race may take")
    parser.add_argument("--only", choices=["false_alarms", "races", "costs"], help="the rest as it is stored")
    asked = parser.parse_args()
    stored = RESULTS / "live.json"
    found: dict[str, Any] = {"alpha": ALPHA, "lists": asked.lists}
    if asked.only and stored.is_file():
        before = json.loads(stored.read_text(encoding="utf-8"))
        found |= {name: before[name] for name in ("lists", "false_alarms", "races", "costs") if name in before}
    if asked.only in (None, "false_alarms"):
        found["false_alarms"], found["lists"] = false_alarms(asked.nulls, asked.lists), asked.lists
    if asked.only in (None, "races"):
        found["races"] = races(asked.races, asked.longest, (1.0, 0.8))
    if asked.only in (None, "costs"):
        found["costs"] = costs(200_000)
    print(write("live", found, tables(found)))


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    made = []
    if "false_alarms" in found:
        alarms = [{"test": name, **one} for name, one in found["false_alarms"].items()]
        note = f"At most {found['alpha']} was promised, whenever one looks, of all tests but the last."
        made.append(page_table(f"False alarms, {found['lists']:,} lists watched one by one", alarms, note))
    if "races" in found:
        note = "Effect: mean lift of clicks per list, or share of lists won. The better system has 4/5 of the noise."
        made.append(page_table("Requests until the better system is found", found["races"], note))
    if "costs" in found:
        rows = [{"what": name, "figure": value} for name, value in found["costs"].items()]
        made.append(page_table("Costs, processor time", rows))
    return made


if __name__ == "__main__":
    main()
