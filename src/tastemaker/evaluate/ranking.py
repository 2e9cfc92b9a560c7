"""The ranking protocol: every case is answered with a list, and lists are held against the right answers."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.evaluate.beyond import BEYOND, Popularity, Tally, Variety
from tastemaker.evaluate.candidates import Candidates, describe, fingerprint, in_words, with_candidates
from tastemaker.evaluate.full import FULL, full_metrics
from tastemaker.evaluate.metrics import ACCURACY, FUNCTIONS, Floats, Hits, Metric, locate
from tastemaker.evaluate.report import Report, Statistics, plain
from tastemaker.evaluate.slices import history_lengths, slice_table
from tastemaker.evaluate.subject import Subject
from tastemaker.types import (
    CapabilityError,
    Cases,
    Dataset,
    Jagged,
    NotFound,
    Part,
    Requests,
    Split,
    UsageError,
    mix,
    nearest,
    progress,
)
from tastemaker.types.meter import machine, metered

METRICS: Mapping[str, Metric] = {**ACCURACY, **FULL, **BEYOND}
BLOCK_ROWS = 8192

POLICIES = (
    "A request without right answers is not counted.",
    "A right answer that the system does not know is a miss.",
    "A request that gets no list, or a shorter one, keeps its place in every mean: what is absent is a miss.",
    "An item repeated in a list counts at its first place only.",
    "Means are over requests; a value undefined for a request (variety of an empty list) is left out of its mean.",
    "Items of equal score are ordered by a fixed hash of the item, not by popularity or age.",
)


def evaluate(
    system: Any,
    split: Split | Cases,
    *,
    part: Part = "test",
    cases: Cases | None = None,
    ks: Sequence[int] = (10, 20),
    metrics: Sequence[str] | None = None,
    exclude_seen: bool = True,
    candidates: Candidates = "all",
    slices: Sequence[str] | None = None,
    diversity: str | NDArray[Any] | None = None,
    train: Dataset | None = None,
    name: str | None = None,
    tuning: Mapping[str, Any] | None = None,
    statistics: Statistics | None = None,
    seed: int = 0,
    budget_mb: float = 256,
) -> Report:
    """Judge ranked lists and return a Report.

    Args:
        system: a bundle, a system, or ready-made `Slates`, one list a case.
        split: where the cases come from; or the cases themselves.
        part: "test" or "valid", where a split is given.
        cases: the split's cases, where they are at hand already.
        ks: cut-offs.
        metrics: names ("ndcg", at every K; "ndcg@5", at that one); None: all usual ones. "auc" and
            "r_precision" need the scores of all items and are computed when named.
        exclude_seen: whether items seen before are kept out of the lists.
        candidates: "all" items; a number: the targets and so many others drawn at random, which makes figures
            that cannot be compared with the full catalogue's; or rows of item numbers, one a case.
        slices: see `tastemaker.evaluate.slices`; None: by history and, with training events, by popularity.
        diversity: an item column, or vectors [I, D], by which lists are called diverse.
        train: the training events, for cases without a split; popularity comes from them.
        name: what the report calls the system.
        tuning: the search that found the settings, as {"trials": 20, "seconds": 300}; comparisons show it.
        seed: for candidates, for systems that draw, and for the bootstrap.
        budget_mb: memory for blocks of scores.

    Raises:
        NotFound: a metric, slice or column is unknown.
        UsageError: arguments do not fit together, or lists do not fit the catalogue.
        CapabilityError: a metric needs scores that the system cannot give.
    """
    source = split if isinstance(split, Split) else None
    if cases is None:
        cases = split.cases(part) if isinstance(split, Split) else split
    train = source.train if train is None and source is not None else train
    subject = Subject.of(system, len(cases), name=name, tuning=tuning, budget_mb=budget_mb)
    pool = describe(candidates, len(cases), seed)
    rows_with = np.flatnonzero(cases.targets.lengths)
    without = len(cases) - len(rows_with)
    if without:
        cases, subject = cases.take(rows_with), subject.take(rows_with)
        candidates = candidates.take(rows_with) if isinstance(candidates, Jagged) else candidates
    _check(cases)
    if not exclude_seen:
        cases = replace(cases, requests=cases.requests.with_(exclude=None))
    wanted = plan(metrics, ks, {"popularity"} if train is not None else set())
    variety = Variety.of_items(diversity, train) if "diversity" in wanted else None
    if "diversity" in wanted and variety is None:
        wanted = _without_diversity(wanted, metrics)
    statistics = statistics or Statistics(seed=seed)

    with metered() as cost:
        asked = (
            {METRICS[metric].needs for metric in wanted}
            | set(slices or ())
            | ({"popularity"} if metrics is None else set())
        )
        popularity = Popularity.of(train) if train is not None and "popularity" in asked else None
        n_items = train.n_items if train is not None else subject.catalogue(cases)
        tally = Tally({name: ks for name, ks in wanted.items() if name in BEYOND}, n_items, popularity, variety)
        run = _Run(subject, cases, candidates, n_items, seed, budget_mb)
        places = run.lists(tally, max((k for ks in wanted.values() for k in ks), default=0))
        started = time.perf_counter()
        rows, totals = _figures(wanted, places, cases, tally)
        run.seconds["metrics"] += time.perf_counter() - started
        if any(metric in FULL for metric in wanted):
            rows |= {metric: values for metric, values in run.full().items() if metric in wanted}
    names = [one for metric, ks in wanted.items() for one in ([f"{metric}@{k}" for k in ks] or [metric])]
    kept = {one: rows[one].astype(np.float32) for one in names if one in rows}
    if slices is None:
        slices = () if metrics is not None else ("history", "popularity") if popularity is not None else ("history",)
    data = source.data if source is not None else train
    return Report(
        system=subject.about,
        split=_about_split(source, cases, part),
        protocol={
            "kind": "ranking",
            "ks": sorted({k for ks in wanted.values() for k in ks}),
            "candidates": pool,
            "exclude_seen": cases.requests.exclude is not None,
            "requests": len(cases),
            "requests_without_targets": without + cases.dropped,
            "targets": len(cases.targets.values),
            "graded": cases.gains is not None,
            "catalogue": n_items,
            "diversity_by": variety.of if variety is not None else None,
            "seed": seed,
            **run.counts,
            "facts": _facts(cases, n_items, pool),
            "policies": list(POLICIES),
        },
        requests=_about_requests(source, cases),
        rows=kept,
        totals={one: totals[one] for one in names if one in totals},
        glossary={metric: METRICS[metric] for metric in wanted},
        slices=slice_table(slices, cases, places, kept, data=data, popularity=popularity, level=statistics.level),
        cost={
            "seconds": cost.seconds,
            "cpu_seconds": cost.cpu_seconds,
            "peak_mb": cost.peak_mb,
            **{f"{what}_seconds": value for what, value in run.seconds.items()},
            "requests_per_second": len(cases) / max(sum(run.seconds.values()), 1e-9),
        },
        machine=machine(),
        warnings=tuple([*(source.warnings if source is not None else ()), *run.warnings(pool, source)]),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        statistics=statistics,
    )


def plan(names: Sequence[str] | None, ks: Sequence[int], have: set[str]) -> dict[str, tuple[int, ...]]:
    """Metric -> cut-offs, in the order of `METRICS`; the metrics of full scores have none."""
    if not all(isinstance(k, int | np.integer) and k > 0 for k in ks) or (not ks and names is None):
        raise UsageError(f"cut-offs are whole numbers from 1, got {list(ks)}")
    if names is None:
        names = [n for n, m in METRICS.items() if m.usual and (m.needs != "popularity" or "popularity" in have)]
    found: dict[str, set[int]] = {}
    for given in names:
        name, at, k = given.partition("@")
        if name not in METRICS:
            raise NotFound(f"there is no metric {name!r}", hint=nearest(name, METRICS))
        if at and (not METRICS[name].at_k or not k.isdecimal() or int(k) < 1):
            raise UsageError(
                f"{given!r} is no metric at a cut-off", hint="as in 'ndcg@10'; auc and r_precision have none"
            )
        if METRICS[name].needs == "popularity" and "popularity" not in have:
            raise UsageError(f"{name} needs the training events", hint="pass a Split, or train=a Dataset")
        found.setdefault(name, set()).update([int(k)] if at else ks if METRICS[name].at_k else [])
    return {name: tuple(sorted(found[name])) for name in METRICS if name in found}


class _Run:
    """Asks for lists block by block; nothing of the size users x items is ever kept."""

    def __init__(
        self, subject: Subject, cases: Cases, candidates: Candidates, n_items: int, seed: int, budget_mb: float
    ) -> None:
        self.subject, self.cases, self.candidates = subject, cases, candidates
        self.n_items, self.seed, self.budget_mb = n_items, seed, budget_mb
        self.n_known = min(n_items, subject.n_items or n_items)
        self.repeated = self.forbidden = 0
        self.seconds = {"lists": 0.0, "metrics": 0.0}
        users, limit = cases.requests.users, subject.n_users or np.inf
        self.counts: dict[str, int] = {
            "targets_unknown": int((cases.targets.values >= self.n_known).sum()),
            "targets_cold": cases.cold_targets,
            "users_unknown": 0 if users is None else int(((users < 0) | (users >= limit)).sum()),
        }

    def lists(self, tally: Tally, k: int) -> NDArray[np.int32]:
        """Place of every target in its request's list [N]; -1: not there."""
        offsets = self.cases.targets.offsets
        places = np.full(len(self.cases.targets.values), -1, dtype=np.int32)
        if k == 0:
            return places
        empty = short = 0
        step = int(np.clip(self.budget_mb * 2**20 / (64 * k), 64, BLOCK_ROWS))
        with progress(f"evaluate {self.subject.label}", len(self.cases)) as advance:
            for start in range(0, len(self.cases), step):
                part = self.cases.take(slice(start, start + step))
                began = time.perf_counter()
                requests = self._ask(part, start)
                items = np.ascontiguousarray(self.subject.answer(requests, k, start).items[:, :k])
                answered = time.perf_counter()
                self._check(items)
                excluded = requests.exclude if requests.exclude is not None else Jagged.empty(len(part))
                right = part.targets
                there = places[offsets[start] : offsets[start + len(part)]]
                repeated, forbidden = locate(
                    items, right.offsets, right.values, excluded.offsets, excluded.values, self.n_items, there
                )
                tally.add(items)
                lengths = (items >= 0).sum(axis=1)
                self.repeated, self.forbidden = self.repeated + repeated, self.forbidden + forbidden
                empty, short = empty + int((lengths == 0).sum()), short + int((lengths < k).sum())
                self.seconds["lists"] += answered - began
                self.seconds["metrics"] += time.perf_counter() - answered
                advance(len(part))
        self.counts |= {"lists_empty": empty, "lists_short": short}
        return places

    def full(self) -> dict[str, Floats]:
        """AUC and R-precision of every request, from blocks of the scores of all items."""
        if self.subject.system is None:
            raise CapabilityError("auc and r_precision need scores of all items, ready-made lists have none")
        started = time.perf_counter()
        with progress(f"score {self.subject.label}", len(self.cases)) as advance:
            found = full_metrics(self.subject.system, self.cases, self._ask, self.budget_mb, advance)
        self.seconds["scores"] = time.perf_counter() - started
        return found

    def warnings(self, pool: Mapping[str, Any], source: Split | None) -> list[str]:
        found = []
        if pool["kind"] == "sampled":
            found.append(
                f"Ranked among the targets and {pool['negatives']:,} random items, not the full catalogue: the figures "
                "are higher, may order systems otherwise, and compare with no others (Krichene, Rendle, KDD 2020)."
            )
        learnt = self.subject.learnt
        if source is not None and learnt is not None and source.train.fingerprint != learnt:
            found.append("The system did not learn from this split's training part: it may know the answers.")
        if self.repeated:
            found.append(f"The lists repeat items in {self.repeated:,} places.")
        if self.forbidden:
            found.append(f"The lists hold {self.forbidden:,} items that were to be excluded.")
        unknown, n = self.counts["targets_unknown"], len(self.cases.targets.values)
        if unknown:
            found.append(f"{unknown:,} of {n:,} right answers are items the system does not know: misses in any case.")
        if (cold := self.counts["targets_cold"] - unknown) > 0:
            found.append(f"{cold:,} of {n:,} right answers have no training event: only content can lead to them.")
        if empty := self.counts.get("lists_empty", 0):
            found.append(f"{empty:,} of {len(self.cases):,} requests got an empty list, and count as misses.")
        return found

    def _ask(self, part: Cases, start: int) -> Requests:
        """The requests of the block of cases that begins at `start`, complete."""
        asked = self.subject.known(part.requests, self.n_known)
        if asked.seeds is None:
            asked = asked.with_(seeds=mix(np.arange(start, start + len(part)), self.seed))
        return with_candidates(part, asked, self.candidates, start, self.n_known, self.seed)

    def _check(self, items: NDArray[np.int32]) -> None:
        if items.max(initial=-1) >= self.n_items:
            raise UsageError(
                f"a list holds item {int(items.max())}, the catalogue has {self.n_items:,} items",
                hint="evaluate on the dataset the system was fitted on",
            )


def _figures(
    wanted: Mapping[str, Sequence[int]], places: NDArray[np.int32], cases: Cases, tally: Tally
) -> tuple[dict[str, Floats], dict[str, float]]:
    hits = Hits.of(places, cases.targets, cases.gains)
    rows = {f"{name}@{k}": FUNCTIONS[name](hits, k) for name, ks in wanted.items() if name in FUNCTIONS for k in ks}
    more, totals = tally.figures(hits, places, cases.targets, cases.requests) if tally.names else ({}, {})
    return rows | more, totals


def _check(cases: Cases) -> None:
    if len(cases) == 0:
        hint = "look at the part that judges: `tastemaker data describe` shows how many events it holds"
        raise UsageError("no case has a right answer, so there is nothing to measure", hint=hint)
    gains = None if cases.gains is None else cases.gains.values
    if gains is not None and not (np.isfinite(gains).all() and (gains >= 0).all()):
        raise UsageError("the worth of a right answer is a finite number of at least 0")


def _without_diversity(wanted: dict[str, tuple[int, ...]], named: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    if named is not None:
        raise UsageError(
            "diversity needs to know how items differ, and they have no column of categories",
            hint="diversity='items.<column>' or vectors [I, D]",
        )
    return {name: ks for name, ks in wanted.items() if name != "diversity"}


def _about_split(source: Split | None, cases: Cases, part: Part) -> dict[str, Any]:
    asked = [cases.requests.users] if cases.requests.users is not None else []
    worth = [cases.gains.values] if cases.gains is not None else []
    judged = fingerprint(cases.targets.offsets, cases.targets.values, *asked, *worth)
    if source is None:
        return {"name": "given cases", "part": None, "cases": judged}
    data = source.data
    return {
        "name": source.name,
        "part": part,
        "cases": judged,
        "spec": plain(source.spec),
        "history": source.history,
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "users": data.n_users,
            "items": data.n_items,
            "events": data.n_events,
            "notes": plain(data.notes),
        },
    }


def _facts(cases: Cases, n_items: int, pool: Mapping[str, Any]) -> list[str]:
    """What a table's title must say of the protocol."""
    return [
        f"{len(cases):,} requests",
        f"{len(cases.targets.values):,} right answers",
        f"{n_items:,} items",
        in_words(pool),
        "seen items excluded" if cases.requests.exclude is not None else "seen items allowed",
    ]


def _about_requests(source: Split | None, cases: Cases) -> pl.DataFrame:
    users = cases.requests.users
    columns: dict[str, Any] = {"request": np.arange(len(cases))}
    if users is not None:
        columns["user"] = source.data.user_ids.ids(users) if source is not None else users
    return pl.DataFrame(columns | {"targets": cases.targets.lengths, "history": history_lengths(cases)})
