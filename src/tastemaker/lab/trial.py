"""One comparison of what is served with a new fit of it, on what happened since, and what else must hold.

Both are asked in the numbers of the newest data, through translations by outside ids (`Through`), so neither gains by
knowing other users and items, and both pay for it in the time that is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tastemaker.compose.translate import Translation
from tastemaker.data import split
from tastemaker.evaluate import Comparison, compare, evaluate
from tastemaker.evaluate.ranking import plan
from tastemaker.evaluate.report import base as base_of
from tastemaker.lab.drift import Drift, when
from tastemaker.train import Bundle, Hardware, fit
from tastemaker.types import UNKNOWN, Cases, Dataset, Requests, Slates, TastemakerError, generator, request_seeds

MOST_CASES = 20_000  # that judge; of more, some are drawn
TIMED = 60  # single requests whose time is taken
FEW_ITEMS = 1024  # all of which are shuffled where lists are drawn by chance
USUAL_K = 10  # where a metric is named without a cut-off
SHOWN = ("ndcg", "recall", "hit_rate", "coverage", "gini")
SERVED, CANDIDATE, CHANCE = "served", "candidate", "chance"


@dataclass(frozen=True)
class Limits:
    """How much else may change.

    coverage: least share of the old one's catalogue coverage
    latency: most times as long for a single list, where that takes over `quick_ms` milliseconds
    size: most times as many bytes
    """

    coverage: float = 0.8
    latency: float = 2.0
    quick_ms: float = 5.0
    size: float = 3.0


@dataclass(frozen=True)
class Check:
    """One condition of a promotion: what was found, what was asked for, and whether it holds."""

    what: str
    old: float
    new: float
    wanted: str
    holds: bool

    def said(self) -> str:
        """It in words, for a refusal."""
        return f"{self.what} is {self.new:.4g} where the old one has {self.old:.4g}; wanted: {self.wanted}"


class Trial:
    """One comparison of what is served with a new fit of it."""

    cut: str
    cases: Cases

    def __init__(
        self,
        old: Bundle,
        data: Dataset,
        drift: Drift,
        metric: str,
        repeats: bool,
        seed: int | None,
        hardware: Hardware | None,
        warm: bool,
        tell: Callable[[str], None],
    ) -> None:
        self.old, self.data, self.drift, self.repeats = old, data, drift, repeats
        self.seed = int(old.about.get("seed", 0)) if seed is None else seed
        self.hardware, self.warm, self.tell = hardware, warm, tell
        self.transforms: Mapping[str, Any] = old.about.get("transforms", {})
        self.candidate: Bundle | None = None
        [(self.name, ks)] = plan([metric], (USUAL_K,), {"popularity"}).items()
        self.k = ks[0] if ks else USUAL_K
        self.metric = f"{self.name}@{self.k}" if ks else self.name

    def prepare(self, min_events: int, judged: float) -> str | None:
        """Hold out the newest part of what is new; returns why there is nothing to judge by, if there is not."""
        if self.drift.events < max(min_events, 2):
            return f"{self.drift.events:,} choices since it was fitted are too few: {min_events:,} are asked for"
        cut = cut_of(self.data, self.drift.until, judged)
        if cut is None:
            return "all that is new happened at one time, so there is no earlier part to learn from"
        self.cut = when(self.data, cut)
        self.parts = split(self.data, "time", at=cut, repeats=self.repeats)
        cases = self.parts.cases("test")
        if not len(cases):
            return f"nothing since {self.cut} can be judged: all of it had been chosen before"
        if len(cases) > MOST_CASES:
            rows = generator(self.seed, "refresh", "cases").choice(len(cases), MOST_CASES, replace=False)
            cases = cases.take(np.sort(rows))
        self.cases = cases
        return None

    def judge(self, tolerance: float, limits: Limits) -> tuple[Comparison, tuple[Check, ...]]:
        """Fit the candidate and compare it with what is served, and with chance."""
        self.tell(f"fitting {self.old.name} on what happened before {self.cut}")
        self.candidate = self._fitted(self.parts.train)
        self.tell(f"comparing on {len(self.cases):,} users since")
        both = [Through(bundle, self.data) for bundle in (self.old, self.candidate)]
        by_chance = drawn(self.cases, self.parts.train.n_items, self.k, self.seed)
        parts = replace(self.parts, cut=None)  # with items to come, which what is served may know and name
        reports = [
            evaluate(
                subject,
                parts,
                cases=self.cases,
                ks=(self.k,),
                metrics=list(dict.fromkeys([*SHOWN, self.name])),
                name=name,
                seed=self.seed,
            )
            for subject, name in zip((*both, by_chance), (SERVED, CANDIDATE, CHANCE), strict=True)
        ]
        comparison = compare(reports, primary=self.metric, tested=[self.metric], correction="none", seed=self.seed)
        old, new, chance = (report.value(self.metric) for report in reports)
        sign = -1 if comparison.glossary[base_of(self.metric)].better == "low" else 1
        margin = tolerance * abs(old)
        lower, beyond = (least_gain(comparison, self.metric, other, sign) for other in (SERVED, CHANCE))
        coverage = f"coverage@{self.k}"
        wide, wider = (report.value(coverage) for report in reports[:2])
        ms, new_ms = self._timed(both)
        slow = new_ms > max(limits.quick_ms, limits.latency * ms)
        checks = (
            Check(self.metric, old, new, f"gain above {-margin:+.4f}; it is at least {lower:+.4f}", lower >= -margin),
            Check("chance", chance, new, f"more than chance finds; it is at least {beyond:+.4f} more", beyond > 0),
            Check(coverage, wide, wider, f"at least {limits.coverage:g} times", wider >= limits.coverage * wide),
            Check("ms a list", ms, new_ms, f"at most {limits.latency:g} times, or {limits.quick_ms:g} ms", not slow),
        )
        return comparison, checks

    def final(self) -> Bundle:
        """The system fitted on everything, for as many epochs as were found best."""
        assert self.candidate is not None
        told = self.candidate.about.get("training", ())
        made = self._fitted(self.data, {one["stage"]: one["best_epoch"] for one in told})
        if self.old.histories is None:
            made.histories = None
        return made

    def sized(self, source: Path, staged: Path, limits: Limits) -> Check:
        old, new = (sum(file.stat().st_size for file in folder.iterdir()) / 2**20 for folder in (source, staged))
        return Check("MB", old, new, f"at most {limits.size:g} times", new <= limits.size * old)

    def facts(self, comparison: Comparison) -> dict[str, Any]:
        """What a promoted bundle says of how it came to be."""
        figures = {entry.label: entry.figures[self.metric].mean for entry in comparison.entries}
        return {
            "events": self.drift.events,
            "cut": self.cut,
            "cases": len(self.cases),
            "metric": self.metric,
            "old": figures[SERVED],
            "new": figures[CANDIDATE],
            "log": self.data.notes.get("log"),
        }

    def _fitted(self, data: Dataset, epochs: Mapping[int, int] | None = None) -> Bundle:
        return fit(
            self.old.info.cls,
            data,
            None if self.warm else self.old.config,
            seed=self.seed,
            transforms=self.transforms,
            warm=self.old if self.warm else None,
            epochs=epochs,
            hardware=self.hardware,
        )

    def _timed(self, both: Sequence[Through]) -> list[float]:
        """Median milliseconds of a single list, old and new, asked in turns."""
        requests = self.cases.requests.take(slice(0, TIMED))
        requests = requests.with_(seeds=request_seeds(requests.n, self.seed))
        taken = np.zeros((requests.n, len(both)))
        for row in range(-1, requests.n):  # the first one warms up, and does not count
            one = requests.take(slice(max(row, 0), max(row, 0) + 1))
            for side, subject in enumerate(both):
                began = time.perf_counter()
                subject.retriever.retrieve(one, self.k)
                taken[max(row, 0), side] = 1e3 * (time.perf_counter() - began)
        return [float(value) for value in np.median(taken, axis=0)]


class Through:
    """A bundle, asked in the numbers of a dataset that knows other users and items; as an evaluation takes it."""

    def __init__(self, bundle: Bundle, data: Dataset) -> None:
        self.info, self.config, self.system = bundle.info, bundle.config, bundle.system
        self.about = {name: bundle.about.get(name) for name in ("seed", "fit")}
        self.schema = data.schema
        self.inner = bundle.retriever
        self.translation = Translation.between(data.user_ids, data.item_ids, bundle.users, bundle.items)
        self.retriever = self

    def retrieve(self, requests: Requests, k: int) -> Slates:
        """The bundle's lists; items that the data does not know are left out."""
        slates: Slates = self.inner.retrieve(self.translation.requests(requests), k)
        if self.translation.back is None:
            return slates
        items = self.translation.items_back(slates.items)
        lost = (items < 0) & (slates.items >= 0)
        if not lost.any():
            return Slates(items, slates.scores)
        order = np.argsort(items < 0, axis=1, kind="stable")
        return Slates(np.take_along_axis(items, order, axis=1), np.take_along_axis(slates.scores, order, axis=1))


def cut_of(data: Dataset, until: int, judged: float) -> int | None:
    """The time from which the newest share of what came after `until` lies; None: nothing new would lie before it."""
    times = data.interactions()["time"].to_numpy()
    times = np.sort(times[times > until])
    if not len(times) or times[0] == times[-1]:
        return None
    later = times[times > times[0]]
    return int(max(times[int((1 - judged) * len(times))], later[0]))


def drawn(cases: Cases, n_items: int, k: int, seed: int) -> Slates:
    """Lists of distinct items drawn at random among those that are not excluded, one a case."""
    n = len(cases)
    rng = generator(seed, "refresh", "chance")
    if n_items <= FEW_ITEMS:
        items = np.argsort(rng.random((n, n_items)), axis=1)
    else:  # enough that k are left when those drawn twice or excluded are taken out, but for extreme histories
        items = rng.integers(0, n_items, (n, 4 * k + 16), dtype=np.int64)
    rows = np.arange(n)[:, None]
    bad = np.zeros(items.shape, dtype=np.bool_)
    if cases.requests.exclude is not None:
        excluded = cases.requests.exclude
        bad |= np.isin(rows * n_items + items, excluded.rows.astype(np.int64) * n_items + excluded.values)
    order = np.argsort(items, axis=1, kind="stable")
    ordered = np.take_along_axis(items, order, axis=1)
    again = np.zeros_like(bad)
    np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    bad |= again
    first = np.argsort(bad, axis=1, kind="stable")[:, :k]
    chosen = np.where(np.take_along_axis(bad, first, axis=1), UNKNOWN, np.take_along_axis(items, first, axis=1))
    scores = np.where(chosen < 0, -np.inf, -np.arange(chosen.shape[1], dtype=np.float32))
    return Slates(chosen.astype(np.int32), scores)


def least_gain(comparison: Comparison, metric: str, other: str, sign: int) -> float:
    """The lower end of the interval of what the candidate gains on another; minus infinity where there is none."""
    row = comparison.against(metric, other)[CANDIDATE]
    ends = sorted((sign * row["low"], sign * row["high"]))
    return float(ends[0]) if np.isfinite(ends).all() else -np.inf


def unwell(folder: Path, data: Dataset, cases: Cases) -> str | None:
    """Opens a written bundle and asks it; returns what is wrong with it, if anything is."""
    asked = cases.requests.take(slice(0, 20))
    try:
        found = Through(Bundle.load(folder), data).retrieve(
            asked.with_(seeds=request_seeds(asked.n, 0), exclude=None), 5
        )
    except TastemakerError as error:
        return f"the new bundle does not answer: {error.message}"
    there = found.items >= 0
    if not there[:, 0].all() or not np.isfinite(found.scores[there]).all():
        return "the new bundle answers with empty lists, or with scores that are no numbers"
    return None
