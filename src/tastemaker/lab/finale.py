"""The end of a choice: the best are fitted again where they must be, judged once on the test part, and timed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tastemaker.contracts import SystemInfo
from tastemaker.evaluate import METRICS, Report, evaluate
from tastemaker.lab.attempt import Goal
from tastemaker.lab.choice import BUNDLES, Finalist
from tastemaker.lab.frontier import Costs, answering, frontier, size_mb
from tastemaker.lab.halving import Contender, Race, Trial
from tastemaker.lab.shop import Job, Workplace, spelled
from tastemaker.train import Bundle
from tastemaker.types import Cases, Split, TastemakerError, generator

REPORTS = "reports"
MOST = 8  # finalists
LEAST_RESERVE, MOST_RESERVE = 0.1, 0.5  # shares of the budget kept for the end
RESERVED_FOR = 3  # finalists that time is kept for; others come if there is some left
TABLE_SECONDS = 1.5  # of tests and pages
FEWEST_CASES = 2000  # of the test part, where all of them would take too long
CAUTION = 1.3  # times what a step took before is what it is expected to take


class Finale:
    """What is left to do when the race is over, what it will take, and how it is done.

    kept: where the bundle of a system's best settings lies, if it was kept
    left: seconds until the budget is used up
    write: adds to the journal
    timing: seconds for which a finalist is asked one at a time, and in batches
    """

    def __init__(
        self,
        split: Split,
        goal: Goal,
        race: Race,
        infos: Mapping[str, SystemInfo],
        folder: Path,
        *,
        kept: Callable[[str], Path],
        left: Callable[[], float],
        write: Callable[..., None],
        timing: float,
        seed: int,
    ) -> None:
        self.split, self.goal, self.race, self.infos, self.folder = split, goal, race, infos, folder
        self.kept, self.left, self.write, self.timing, self.seed = kept, left, write, timing, seed
        self.first: Bundle | None = None

    # -- who, and what it takes

    def candidates(self) -> list[tuple[Contender, Trial]]:
        """Systems to be judged on the test part, each with its best trial, in the order in which they should be.

        First those of the last round, then those that nothing as cheap equalled on validation data.
        """
        there = [(c, trial) for c in self.race.contenders.values() if (trial := c.stand()) is not None]
        if not there:
            return []
        seen = [trial.users for _, trial in there]
        widest = None if None in seen else max(users for users in seen if users is not None)
        order = sorted((one for one in there if one[1].users == widest), key=lambda one: -_value(one[1]))
        last = self.race.rounds[-1].systems
        values = [_value(trial) for _, trial in order]
        edge: set[int] = set()
        edge |= set(frontier(values, [trial.outcome.fit_seconds for _, trial in order]))
        edge |= set(frontier(values, [-trial.outcome.rate for _, trial in order]))
        far = [one for one in order if one[0].name in last]
        cheap = [one for n, one in enumerate(order) if one[0].name not in last and n in edge]
        return [*far, *cheap][:MOST]

    def reserve(self, budget: float) -> float:
        """Seconds that the end will take, about."""
        wanted = TABLE_SECONDS + CAUTION * sum(self.cost(trial) for _, trial in self.candidates()[:RESERVED_FOR])
        return min(MOST_RESERVE * budget, max(LEAST_RESERVE * budget, wanted))

    def cost(self, trial: Trial) -> float:
        """Seconds that one finalist takes."""
        kept = self.split.sizes["valid"] and trial.users is None
        whole = 1.0 if trial.users is None else self.race.n_users / trial.users
        n_test = min(self.split.sizes["test"], self.split.data.n_users)  # about: the cases are not asked for yet
        fitted = 0.0 if kept else CAUTION * whole * trial.outcome.fit_seconds
        return fitted + 2.0 * n_test / max(trial.outcome.rate, 1.0) + 2 * self.timing + 0.5

    # -- doing it

    def play(self, place: Workplace, done: Sequence[str], say: Callable[[str], None]) -> list[str]:
        """Fit, judge and time the candidates that are not `done` yet; returns what must be said of it."""
        notes: list[str] = []
        late: list[str] = []
        for contender, trial in self.candidates():
            if contender.name in done:
                continue
            some = bool(done) or self.first is not None
            if some and self.left() - TABLE_SECONDS < self.cost(trial):
                late.append(contender.name)
                continue
            say(f"judging {contender.name} on the test part")
            bundle, why = self._fitted(place, contender, trial)
            if bundle is None:
                notes.append(f"{contender.name} could not be fitted again ({why}), so it is not compared.")
                continue
            self._judge(contender, trial, bundle)
            self.first = self.first or bundle
        if late:
            notes.append(f"Time was out before these could be judged on the test part: {', '.join(late)}.")
        for record in self.race.journal.of("tested"):
            if (n := record["cases"]) < (of := record["of"]):
                notes.append(f"Judged on {n:,} of {of:,} test cases, drawn at random: all would take too long.")
        return notes

    def read(self, records: Sequence[Mapping[str, Any]]) -> list[Finalist]:
        """Finalists as the journal has them, in the order of their validation values."""
        if not records:
            raise TastemakerError("no system came to a value", hint="give a larger budget, or name fewer systems")
        found = [
            Finalist(
                record["system"],
                record["settings"],
                record["value"],
                Costs.from_json(record["costs"]),
                Report.load(self.folder / REPORTS / f"{record['system']}.parquet"),
                self.folder / BUNDLES / record["system"],
            )
            for record in records
        ]
        return sorted(found, key=lambda one: -one.value)

    def _fitted(self, place: Workplace, contender: Contender, trial: Trial) -> tuple[Bundle | None, str]:
        """The bundle that was kept when its settings were found best, or a new one; or why there is none."""
        kept = self.kept(contender.name)
        if trial.users is None and self.split.sizes["valid"] and place.has(kept):
            return place.bundle(kept), ""
        outcome = place.do(
            Job(
                "final",
                spelled(self.infos[contender.name]),
                contender.space.whole(trial.settings),
                seconds=max(1.0, CAUTION * trial.outcome.fit_seconds) if trial.outcome.unfinished else None,
                keep=str(kept),
                epochs=trial.outcome.epochs,
            ),
            max(4.0 * trial.outcome.fit_seconds + place.grace, 0.5 * self.left()),
        )
        return (place.bundle(kept), "") if outcome.state == "done" else (None, outcome.reason)

    def _judge(self, contender: Contender, trial: Trial, bundle: Bundle) -> None:
        """Read the test part; leave the report, the bundle, and the record that it is done."""
        allowed = round(contender.allowed)
        bundle.about["tuning"] = {"settings": contender.settings, "seconds": allowed}
        report = evaluate(
            bundle,
            self.split,
            cases=self.cases,
            ks=(self.goal.k,),
            metrics=self._metrics(),
            slices=("history", "popularity"),
            tuning={"seconds": allowed},
            name=contender.name,
            seed=self.seed,
        )
        bundle.about["metrics"] = {name: round(v, 5) for name, v in report.values().items() if math.isfinite(v)}
        place = bundle.save(self.folder / BUNDLES / contender.name)
        (self.folder / REPORTS).mkdir(parents=True, exist_ok=True)
        report.save(self.folder / REPORTS / f"{contender.name}.parquet")
        alone, rate = answering(bundle, self.cases, self.goal.k, self.timing)
        peak = max(bundle.about["fit"]["peak_mb"], trial.outcome.peak_mb)
        costs = Costs(bundle.about["fit"]["seconds"], peak, size_mb(place), alone, rate)
        settings = contender.space.changed(trial.settings)
        self.write("final", system=contender.name, settings=settings, value=_value(trial), costs=costs.to_json())

    def _metrics(self) -> list[str] | None:
        """The usual metrics, and the goal's own where it is none of them."""
        base = self.goal.metric.partition("@")[0]
        if METRICS[base].usual:
            return None
        return [*(name for name, metric in METRICS.items() if metric.usual and metric.accuracy), base]

    @cached_property
    def cases(self) -> Cases:
        """Cases of the test part, asked for when the first finalist is judged; some of them where all take too long."""
        cases = self.split.cases("test")
        for record in self.race.journal.of("tested"):
            n = int(record["cases"])
            break
        else:
            first = self.candidates()[:RESERVED_FOR]
            slowest = min(trial.outcome.rate for _, trial in first)
            seconds = 0.5 * max(0.0, self.left()) / len(first)
            n = min(len(cases), max(FEWEST_CASES, int(seconds * slowest / CAUTION)))
            self.write("tested", cases=n, of=len(cases))
        if n >= len(cases):
            return cases
        picked = generator(self.seed, "test cases").choice(len(cases), n, replace=False)
        return cases.take(np.sort(picked))


def _value(trial: Trial) -> float:
    return -math.inf if trial.outcome.value is None else trial.outcome.value
