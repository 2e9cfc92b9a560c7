"""From the log to a verdict on an experiment, to be asked as often as one likes.

Everything is computed from two tables of the log, lists and events, so the same log gives the same answer. A list
enters when its window is over, with all its feedback, and never changes afterwards: so the result is a path along the
lists, evidence gathers list by list, and it does not matter when or how often anybody looked.

* Lists, not claims: an event counts by the list it names, if it came within the window and on an item of that list.
  What the event says of its experiment or arm is not read. The same feedback on the same item counts once.
* Units: outcomes are added up by unit, see `evaluate.sequential`. A metric per user counts a user once, when the
  horizon after her first list is over, with all she did by then.
* Several arms: p-values are Holm's, intervals hold jointly (alpha over their number). Guardrails have an alpha of their
  own, shared among them: a harm is no smaller for what else was looked at.
* A verdict is reached when p falls to alpha, and p never rises. If the difference is on the other side by now, the
  verdict is withdrawn: something changed meanwhile, and a warning says so.
* The split: units must come to the arms in the planned shares. Where they do not, something loses lists of one arm,
  and no figure can be trusted (Fabijan and others, "Diagnosing sample ratio mismatch", KDD 2019).
* Interleaving: a list is won by the arm whose items earned more. With the unit "request" lists are tosses of a coin,
  and the test is exact. With "user" one who comes often is not a crowd: wins are added up by user, and the test is the
  asymptotic one.

What the log has to hold: of an A/B test the arm a unit was dealt, also where something else answered in its place; of
an interleaved list the arm `MIXED` and in the trace "teams": [0, 1, ...], along `Experiment.names`, -1 for nobody's; of
an unseen list what `serve.shadows` says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.evaluate.sequential import (
    Sums,
    Track,
    adjusted,
    always_valid,
    counts_evidence,
    difference,
    lift,
    mean_sequence,
    sign_test,
    win_share,
)
from tastemaker.serve.experiments import MIXED, Experiment, Metric
from tastemaker.serve.shadows import shadow_result
from tastemaker.serve.verdicts import ArmFigures, Contrast, Guard, Result, SplitCheck, Verdict
from tastemaker.types import UsageError, nearest

Floats = NDArray[np.float64]
Frame = pl.DataFrame | pl.LazyFrame

SPLIT_ALPHA = 0.001
"""Level of the test of the split: a false alarm there costs a whole experiment."""
POINTS = 200
LARGEST = 1e9  # what one event may be worth: whoever sends feedback may send anything
ODD = 0.02  # share of feedback that does not fit its list, above which one is told
SECOND = 1_000_000
SLATE_COLUMNS: dict[str, Any] = {
    "slate": pl.String, "time": pl.Int64, "user": pl.String, "session": pl.String, "experiment": pl.String,
    "arm": pl.String, "items": pl.List(pl.String), "trace": pl.String,
}  # fmt: skip
EVENT_COLUMNS: dict[str, Any] = {
    "id": pl.String, "time": pl.Int64, "kind": pl.String, "user": pl.String, "item": pl.String, "value": pl.Float64,
    "slate": pl.String,
}  # fmt: skip


def analyse(experiment: Experiment, events: Frame, slates: Frame, *, now: int | None = None) -> Result:
    """Where an experiment stands at `now` (microseconds; default: the latest time in the tables).

    A server passes its clock: the times of events are what clients say.

    Args:
        events: id, time, kind, user, item, value, slate (and more), times in microseconds
        slates: slate, time, user, session, experiment, arm, items (lists of texts), trace (JSON text) (and more)

    Raises:
        UsageError: a table lacks a column.
    """
    events, slates = _columns(events, EVENT_COLUMNS, "events"), _columns(slates, SLATE_COLUMNS, "slates")
    own = slates.filter(pl.col("experiment") == experiment.name).collect()
    if now is None:
        latest = [own["time"].max(), events.select(pl.col("time").max()).collect().item()]
        now = max((int(time) for time in latest if isinstance(time, int)), default=0)
    own = own.filter(pl.col("time") <= now)
    if experiment.kind == "shadow":
        return shadow_result(experiment, own, now)
    lists, left_out, warnings = _lists(experiment, own)
    feedback = _feedback(experiment, events, lists, now, warnings)
    if experiment.kind == "interleave":
        return _Interleaved(experiment, lists, feedback, now, left_out, warnings).result()
    return _Split(experiment, lists, feedback, now, left_out, warnings).result()


# -- from the log to rows


def _columns(frame: Frame, types: dict[str, Any], what: str) -> pl.LazyFrame:
    lazy = frame.lazy()
    there = lazy.collect_schema().names()
    if lacking := [name for name in types if name not in there]:
        raise UsageError(f"the table of {what} lacks the column {lacking[0]!r}", hint=nearest(lacking[0], there))
    return lazy.select(pl.col(name).cast(kind) for name, kind in types.items())


def _lists(experiment: Experiment, own: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int], list[str]]:
    """Lists that were shown, in the order of time, with `unit` (a number) and `closes`; and what is left out, why."""
    shown = own.filter(pl.col("trace").str.json_path_match("$.shadow").fill_null("") != "true")
    shown = shown.unique("slate", keep="first", maintain_order=True)
    started, stopped = experiment.started, experiment.stopped
    if started is not None:
        shown = shown.filter(pl.col("time") >= started)
    if stopped is not None:
        shown = shown.filter(pl.col("time") <= stopped)
    shown = shown.filter(pl.col("arm").is_in([MIXED] if experiment.kind == "interleave" else experiment.names))
    unit = {"user": "user", "session": "session", "request": "slate"}[experiment.unit]
    left_out = {"without a unit": shown[unit].null_count()}
    shown = shown.filter(pl.col(unit).is_not_null()).sort("time", "slate")
    shown = shown.with_columns(
        unit=pl.col(unit).cast(pl.String).rank("dense").cast(pl.Int64) - 1,
        closes=pl.col("time") + round(experiment.window * SECOND),
        number=pl.col(unit).cum_count().over(unit),
    )
    crossed = pl.col("arm").n_unique().over("unit") > 1
    both = shown.filter(crossed)["unit"].n_unique()
    left_out["of units in several arms"] = int(shown.select(crossed.sum()).item()) if both else 0
    shown = shown.filter(~crossed)
    beyond = pl.col("number") > experiment.most_lists
    left_out["beyond most_lists of a unit"] = int(shown.select(beyond.sum()).item() or 0)
    warnings = [f"{both:,} units were seen in several arms and are left out"] if both else []
    return shown.with_columns(counts=~beyond).drop("number"), left_out, warnings


def _feedback(
    experiment: Experiment, events: pl.LazyFrame, lists: pl.DataFrame, now: int, warnings: list[str]
) -> pl.DataFrame:
    """Events of the kinds that are measured, each once; `slate` is null where they do not count for a list.

    An event without a user is of the user who was shown the list it names.
    """
    kinds = {metric.event for metric in (experiment.primary, *experiment.guardrails) if metric.of != "trace"}
    found = events.filter(pl.col("kind").is_in(kinds) & (pl.col("time") <= now))
    named = lists.lazy().select("slate", "items", "closes", shown="time", of="user")
    value = pl.when(pl.col("value").is_finite()).then(pl.col("value").clip(-LARGEST, LARGEST)).otherwise(0.0)
    on_item = pl.col("item").is_null() | pl.col("items").list.contains(pl.col("item"))
    joined = found.join(named, on="slate", how="left").select(
        "id", "time", "kind", "item", value=value, user=pl.coalesce("user", "of"),
        named=pl.col("shown").is_not_null(), early=pl.col("time") < pl.col("shown"), foreign=~on_item,
        slate=pl.when(on_item & pl.col("time").is_between(pl.col("shown"), pl.col("closes"))).then("slate"),
    )  # fmt: skip
    kept = joined.collect().unique("id")
    for column, what in (("early", "came before the list it names: is a clock wrong?"),
                         ("foreign", "is on an item that the list it names does not have")):  # fmt: skip
        if (n := int(kept[column].sum())) > ODD * max(1, int(kept["named"].sum())):
            warnings.append(f"feedback {what} ({n:,} times; it does not count for a list)")
    return kept.drop("named", "early", "foreign")


def _amount(metric: Metric) -> pl.Expr:
    """What the feedback on one list, or of one user, amounts to; the rows are of different items."""
    return {"count": pl.len().cast(pl.Float64), "any": pl.lit(1.0), "value": pl.col("value").sum()}[metric.of]


@dataclass(frozen=True, eq=False)
class _Rows:
    """Observations in the order in which they were complete: when [T], of which unit and arm [T], and how much [T]."""

    time: NDArray[np.int64]
    unit: NDArray[np.int64]
    arm: NDArray[np.int64]
    y: Floats


@dataclass(eq=False)
class _Analysis:
    """What both kinds share."""

    experiment: Experiment
    lists: pl.DataFrame
    feedback: pl.DataFrame
    now: int
    left_out: dict[str, int]
    warnings: list[str]

    def __post_init__(self) -> None:
        counted = self.lists.filter("counts")
        self.closed = counted.filter(pl.col("closes") <= self.now).sort("closes", "slate")
        self.left_out["still in their window"] = counted.height - self.closed.height

    @property
    def names(self) -> tuple[str, ...]:
        return self.experiment.names

    @property
    def control(self) -> int:
        return self.names.index(self.experiment.control)

    @property
    def sign(self) -> int:
        return 1 if self.experiment.primary.direction == "up" else -1

    @property
    def joint(self) -> float:
        """Alpha of each interval, so that all hold."""
        return self.experiment.alpha / (len(self.names) - 1)

    def verdict(self, arm: str, p: Floats, deviation: Floats, time: NDArray[np.int64]) -> tuple[Verdict, int | None]:
        """Of an arm's p-values and its distance from the null [T]: what they say, and since when."""
        reached, since, side = _crossing(p, deviation, self.experiment.alpha, time)
        if not reached:
            return "not yet", None
        if side == 0:
            self.warnings.append(
                f"{arm} differed from the control at one time, and by now the difference is on the other side: "
                "something changed meanwhile"
            )
            return "not yet", since
        return ("better" if side * self.sign > 0 else "worse"), since

    def check(self, counts: NDArray[np.int64], shares: Floats) -> SplitCheck:
        """Of cumulative counts [T, A]."""
        p = always_valid(counts_evidence(counts, shares))[-1] if len(counts) else 1.0
        last = tuple(map(int, counts[-1])) if len(counts) else (0,) * len(shares)
        ok = bool(p > SPLIT_ALPHA)
        if not ok:
            planned = " : ".join(f"{share:.4g}" for share in shares)
            self.warnings.append(
                f"the split is not as planned: {' : '.join(f'{n:,}' for n in last)} for {planned} (p = {p:.1g}); "
                "look for what loses or adds lists of one arm, no figure here can be trusted"
            )
        return SplitCheck(last, tuple(map(float, shares)), float(p), ok)

    def finish(
        self,
        arms: list[ArmFigures],
        contrasts: list[Contrast],
        guardrails: list[Guard],
        split: SplitCheck,
        path: list[pl.DataFrame],
    ) -> Result:
        harmed = {guard.arm for guard in guardrails if guard.state == "harmed"}
        better = [one for one in contrasts if one.verdict == "better" and one.arm not in harmed]
        best = max(better, key=lambda one: self.sign * one.difference, default=None)
        verdict: Verdict = "not yet"
        if not split.ok:
            verdict, best = "invalid", None
        elif harmed:
            verdict = "harm: stop"
        elif best is not None:
            verdict = "better"
        elif contrasts and all(one.verdict == "worse" for one in contrasts):
            verdict = "worse"
        return Result(
            self.experiment.name, self.experiment.kind, self.now, self.experiment.alpha, self.experiment.control,
            self.experiment.primary.name, tuple(arms), tuple(contrasts), tuple(guardrails), split, (), verdict,
            None if best is None else best.arm, dict(self.left_out), tuple(self.warnings), pl.concat(path),
        )  # fmt: skip


def _crossing(
    p: Floats, deviation: Floats, alpha: float, time: NDArray[np.int64]
) -> tuple[bool, int | None, Literal[-1, 0, 1]]:
    """Whether and when p reached alpha, and on which side that was; side 0: it has changed since."""
    if not len(p) or not p[-1] <= alpha:
        return False, None, 0
    at = int(np.argmax(p <= alpha))
    then, today = np.sign(deviation[at]), np.sign(deviation[-1])
    side: Literal[-1, 0, 1] = 0 if then != today else 1 if today > 0 else -1
    return True, int(time[at]), side


def _moments(n: int) -> NDArray[np.int64]:
    """Up to `POINTS` places of a path, the last one among them."""
    return np.unique(np.linspace(0, n - 1, min(n, POINTS)).round().astype(np.int64)) if n else np.empty(0, np.int64)


# -- A/B: units are dealt to arms


class _Split(_Analysis):
    def rows(self, metric: Metric) -> _Rows:
        table = self.per_user(metric) if metric.per == "user" else self.per_list(metric)
        arm = table.select(pl.col("arm").replace_strict(self.names, range(len(self.names)), return_dtype=pl.Int64))
        return _Rows(table["closes"].to_numpy(), table["unit"].to_numpy(), arm["arm"].to_numpy(), table["y"].to_numpy())

    def per_list(self, metric: Metric) -> pl.DataFrame:
        if metric.of == "trace":
            y = pl.col("trace").str.json_path_match(f"$.{metric.event}").cast(pl.Float64, strict=False)
            return self.closed.with_columns(y=y.clip(-LARGEST, LARGEST)).filter(pl.col("y").is_finite())
        given = self.feedback.filter((pl.col("kind") == metric.event) & pl.col("slate").is_not_null())
        once = given.group_by("slate", "item").agg(pl.col("value").sum())
        amounts = once.group_by("slate").agg(y=_amount(metric))
        return self.closed.join(amounts, on="slate", how="left", maintain_order="left").with_columns(
            pl.col("y").fill_null(0.0)
        )

    def per_user(self, metric: Metric) -> pl.DataFrame:
        horizon = round(self.experiment.horizon * SECOND)
        units = self.lists.group_by("unit").agg(
            pl.col("user").first(), pl.col("arm").first(), first=pl.col("time").min()
        )
        end = self.now if self.experiment.stopped is None else min(self.now, self.experiment.stopped)
        units = units.with_columns(closes=pl.col("first") + horizon).filter(pl.col("closes") <= end)
        units = units.sort("closes", "user")
        given = self.feedback.filter(pl.col("kind") == metric.event)
        given = given.join(units.select("user", "first", "closes"), on="user")
        given = given.filter(pl.col("time").is_between(pl.col("first"), pl.col("closes")))
        once = given.group_by("user", pl.coalesce("slate", "id").alias("place"), "item").agg(pl.col("value").sum())
        y = once.group_by("user").agg(y=_amount(metric))
        return units.join(y, on="user", how="left", maintain_order="left").with_columns(pl.col("y").fill_null(0.0))

    def result(self) -> Result:
        rows = self.rows(self.experiment.primary)
        sums = self.sums(rows)
        contrasts, path = self.compare(rows, sums)
        return self.finish(
            self.figures(rows, sums), contrasts, self.guard(), self.check(self.units(), self.experiment.shares), path
        )

    def sums(self, rows: _Rows) -> list[Sums]:
        return [Sums.of(rows.y, units=rows.unit, where=rows.arm == arm) for arm in range(len(self.names))]

    def units(self) -> NDArray[np.int64]:
        """Units of each arm by the time of their first list, cumulative [T, A]."""
        first = self.lists.unique("unit", keep="first", maintain_order=True)["arm"]
        return np.cumsum(np.stack([(first == name).to_numpy() for name in self.names], axis=1), axis=0)

    def figures(self, rows: _Rows, sums: list[Sums]) -> list[ArmFigures]:
        detect = self.experiment.primary.detect
        found = []
        for name, own in zip(self.names, sums, strict=True):
            if not len(rows.y):
                found.append(ArmFigures(name, 0, 0, 0.0, math.nan, -math.inf, math.inf))
                continue
            last = own.at(slice(-1, None))
            track = mean_sequence(last, effect=detect * np.abs(last.ratio), alpha=self.experiment.alpha)
            ends = float(track.low[0]), float(track.high[0])
            found.append(
                ArmFigures(name, int(last.n[0]), int(last.x[0]), float(last.y[0]), float(last.ratio[0]), *ends)
            )
        return found

    def compare(self, rows: _Rows, sums: list[Sums]) -> tuple[list[Contrast], list[pl.DataFrame]]:
        primary, control = self.experiment.primary, sums[self.control]
        effect = primary.detect * np.abs(control.ratio)
        others = [self.names.index(name) for name in self.experiment.others]
        tracks = [difference(sums[arm], control, effect=effect, alpha=self.joint) for arm in others]
        p = adjusted(np.stack([track.p for track in tracks]))
        some = _moments(len(rows.y))
        contrasts, path = [], []
        for arm, track, own_p in zip(others, tracks, p, strict=True):
            name, own = self.names[arm], sums[arm]
            verdict, since = self.verdict(name, own_p, track.estimate, rows.time)
            last = slice(-1, None)
            lifted = lift(own.at(last), control.at(last), effect=effect[last], alpha=self.joint)
            contrasts.append(
                Contrast(
                    name,
                    primary.name,
                    difference=_last(track.estimate),
                    low=_last(track.low, -math.inf),
                    high=_last(track.high, math.inf),
                    lift=_last(lifted[0]),
                    lift_low=_last(lifted[1], -math.inf),
                    lift_high=_last(lifted[2], math.inf),
                    p=_last(own_p, 1.0),
                    since=since,
                    verdict=verdict,
                )
            )
            path.append(_path(name, rows.time, own.n, own.x, own.ratio, track, own_p, some))
        return contrasts, path

    def guard(self) -> list[Guard]:
        """A guardrail asks whether the arm is above what is tolerated; either answer may be certain."""
        found = []
        n = max(1, len(self.experiment.guardrails) * len(self.experiment.others))
        alpha = self.experiment.alpha / n
        for metric in self.experiment.guardrails:
            rows = self.rows(metric)
            sums = self.sums(rows)
            control = sums[self.control]
            if len(rows.y) and not rows.y.any():
                self.warnings.append(f"guardrail {metric.name}: no such feedback has come in any arm")
            effect = metric.detect * np.abs(control.ratio)
            sign = 1 if metric.direction == "up" else -1
            for name in self.experiment.others:
                own = sums[self.names.index(name)]
                track = difference(own, control, effect=effect, alpha=alpha, weight=1 - sign * metric.tolerate)
                reached, since, side = _crossing(track.p, track.estimate, alpha, rows.time)
                state: Literal["fine", "inconclusive", "harmed"] = "inconclusive"
                if reached and side:
                    state = "fine" if side == sign else "harmed"
                last = slice(-1, None)
                lifted = lift(own.at(last), control.at(last), effect=effect[last], alpha=alpha)
                found.append(
                    Guard(
                        name,
                        metric.name,
                        mean=_last(own.ratio),
                        control=_last(control.ratio),
                        lift=_last(lifted[0]),
                        lift_low=_last(lifted[1], -math.inf),
                        lift_high=_last(lifted[2], math.inf),
                        tolerate=metric.tolerate,
                        state=state,
                        since=since,
                    )
                )
        return found


# -- interleaving: every list is dealt from all arms


class _Interleaved(_Analysis):
    def result(self) -> Result:
        credit, first = self.credits()
        time = self.closed["closes"].to_numpy()
        units = self.closed["unit"].to_numpy()
        n_units = np.cumsum(_new(units), dtype=np.int64)
        some = _moments(len(time))
        contrasts, path = [], []
        outcomes = [np.sign(credit[:, self.names.index(a)] - credit[:, self.control]) for a in self.experiment.others]
        tracks = [self.track(outcome, units) for outcome in outcomes]
        p = adjusted(np.stack([track.p for track in tracks]))
        for name, outcome, track, own_p in zip(self.experiment.others, outcomes, tracks, p, strict=True):
            deviation = track.estimate - 0.5
            verdict, since = self.verdict(name, own_p, deviation, time)
            ends = self.ends(outcome, track, some)
            shifted = Track(deviation[some], ends[0] - 0.5, ends[1] - 0.5, track.evidence[some])
            contrasts.append(
                Contrast(
                    name,
                    self.experiment.primary.name,
                    difference=_last(deviation, 0.0),
                    low=_last(shifted.low, -0.5),
                    high=_last(shifted.high, 0.5),
                    lift=math.nan,
                    lift_low=math.nan,
                    lift_high=math.nan,
                    p=_last(own_p, 1.0),
                    since=since,
                    verdict=verdict,
                    wins=int((outcome > 0).sum()),
                    losses=int((outcome < 0).sum()),
                    ties=int((outcome == 0).sum()),
                )
            )
            ones = np.arange(1, len(time) + 1, dtype=np.float64)
            whole = slice(None)
            path.append(
                _path(name, time[some], n_units[some], ones[some], track.estimate[some], shifted, own_p[some], whole)
            )
        totals = credit.sum(axis=0)
        n, last_units = len(time), int(n_units[-1]) if len(time) else 0
        arms = [
            ArmFigures(name, last_units, n, float(total), float(total) / n if n else math.nan, -math.inf, math.inf)
            for name, total in zip(self.names, totals, strict=True)
        ]
        picks = np.cumsum(first[:, None] == np.arange(len(self.names)), axis=0)
        fair = np.full(len(self.names), 1 / len(self.names))
        return self.finish(arms, contrasts, [], self.check(picks, fair), path)

    def credits(self) -> tuple[Floats, NDArray[np.int64]]:
        """What each arm's items earned in each closed list [T, A], and which arm had the first pick [T] (-1: none)."""
        metric, n_arms = self.experiment.primary, len(self.names)
        listed = pl.col("trace").str.json_path_match("$.teams").str.strip_chars("[]").str.split(",")
        teams = listed.list.eval(pl.element().str.strip_chars().cast(pl.Int64, strict=False))
        lists = self.closed.select("slate", "items", teams=teams).with_row_index("row")
        n_items = pl.col("items").list.len()
        whole = (n_items > 0) & (pl.col("teams").list.len() == n_items).fill_null(False)
        if lacking := lists.height - lists.filter(whole).height:
            self.left_out["without teams in the trace"] = lacking
            self.warnings.append(
                f"{lacking:,} lists do not say in their trace who picked which item; they count as ties"
            )
        slots = lists.filter(whole).explode("items", "teams").rename({"items": "item"})
        slots = slots.filter(pl.col("teams").is_between(0, n_arms - 1))
        first = np.full(lists.height, -1, dtype=np.int64)
        tops = slots.unique("row", keep="first", maintain_order=True)
        first[tops["row"].to_numpy()] = tops["teams"].to_numpy()
        given = self.feedback.filter((pl.col("kind") == metric.event) & pl.col("slate").is_not_null())
        once = given.group_by("slate", "item").agg(pl.col("value").sum())
        earned = once.join(slots, on=("slate", "item"))
        place = earned["row"].to_numpy().astype(np.int64) * n_arms + earned["teams"].to_numpy()
        weight = earned["value"].to_numpy() if metric.of == "value" else np.ones(earned.height)
        credit = np.bincount(place, weights=weight, minlength=lists.height * n_arms).astype(np.float64)
        return credit.reshape(-1, n_arms), first

    def track(self, outcome: Floats, units: NDArray[np.int64]) -> Track:
        """Share of wins among decided lists, and the evidence that it is not one half; ends are made by `ends`."""
        detect = self.experiment.primary.detect
        wins, losses = np.cumsum(outcome > 0), np.cumsum(outcome < 0)
        share = np.where(wins + losses > 0, wins / np.maximum(wins + losses, 1), 0.5)
        if self.experiment.unit == "request":
            nothing = np.full(len(outcome), np.nan)
            return Track(share, nothing, nothing, sign_test(wins, losses, effect=detect))
        sums = Sums.of(outcome, units=units, where=outcome != 0)
        found = mean_sequence(sums, effect=2 * detect, alpha=self.joint)
        return Track(share, (1 + found.low) / 2, (1 + found.high) / 2, found.evidence)

    def ends(self, outcome: Floats, track: Track, some: NDArray[np.int64]) -> tuple[Floats, Floats]:
        if self.experiment.unit == "request":
            wins, losses = np.cumsum(outcome > 0)[some], np.cumsum(outcome < 0)[some]
            return win_share(wins, losses, effect=self.experiment.primary.detect, alpha=self.joint)
        return np.maximum(track.low[some], 0.0), np.minimum(track.high[some], 1.0)


def _new(units: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Rows at which a unit appears for the first time."""
    new = np.zeros(len(units), dtype=np.bool_)
    new[np.unique(units, return_index=True)[1]] = True
    return new


def _path(
    arm: str,
    time: NDArray[np.int64],
    units: NDArray[Any],
    lists: Floats,
    mean: Floats,
    track: Track,
    p: Floats,
    some: Any,
) -> pl.DataFrame:
    ends = (np.where(np.isfinite(end), end, np.nan)[some] for end in (track.low, track.high))
    low, high = (pl.Series(end, nan_to_null=True) for end in ends)
    return pl.DataFrame(
        {
            "time": time[some],
            "arm": pl.Series([arm] * len(time[some]), dtype=pl.String),
            "units": units[some].astype(np.int64),
            "lists": lists[some].astype(np.int64),
            "mean": pl.Series(mean[some], nan_to_null=True),
            "difference": pl.Series(track.estimate[some], nan_to_null=True),
            "low": low,
            "high": high,
            "p": p[some],
        }
    )


def _last(values: Floats, otherwise: float = math.nan) -> float:
    return float(values[-1]) if len(values) else otherwise
