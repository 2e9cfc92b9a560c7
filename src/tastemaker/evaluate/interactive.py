"""The interactive protocol: a policy plays in an environment, turn by turn, and is judged by what it earns there.

Everything is played once a seed. Sessions of one seed share a policy: where it learns, what one session brings moves
the next one's list, so only seeds are independent, and a value a seed is what intervals are made of. Where nothing is
learnt, sessions are independent too, and each has its own value.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.contracts import Environment
from tastemaker.evaluate.candidates import fingerprint
from tastemaker.evaluate.metrics import Metric
from tastemaker.evaluate.policy import Policy, policy
from tastemaker.evaluate.report import SLICE_COLUMNS, Report, Statistics
from tastemaker.evaluate.statistics import bootstrap
from tastemaker.evaluate.subject import about
from tastemaker.types import Slates, UsageError, progress, request_seeds
from tastemaker.types.meter import machine, metered

Floats = NDArray[np.float64]
S = TypeVar("S", contravariant=True)
POINTS = 20  # turns of which the report keeps the course
INTERACTIVE: Mapping[str, Metric] = {
    "reward": Metric("reward", "Reward a turn", "Mean reward of the turns whose reward is known."),
    "total": Metric("total", "Total reward", "Sum of a session's rewards."),
    "regret": Metric("regret", "Regret", "What the best lists would have earned beyond a session's.", better="low"),
    "success": Metric("success", "SR", "Whether a session had its first success within so many turns."),
    "turns": Metric(
        "turns",
        "AT",
        "Turns up to the first success; all turns that were possible, where there was none.",
        better="low",
    ),
    "stayed": Metric("stayed", "Turns stayed", "Turns until the session was over."),
    "known": Metric(
        "known", "Turns known", "Turns whose reward is known; a replay knows those that agree.", better=None
    ),
}


@runtime_checkable
class Truthful(Protocol[S]):
    """An environment that knows what lists are worth."""

    def expected(self, state: S, slates: Slates) -> Floats:
        """Mean reward of lists [B]."""
        ...

    def best(self, state: S, k: int) -> Floats:
        """Mean reward of the best lists of at most k items [B]."""
        ...


def interact(
    system: Any,
    environment: Environment[Any],
    *,
    turns: int = 100,
    sessions: int = 64,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    k: int = 1,
    learn: bool = True,
    push: int = 1,
    at: Sequence[int] = (1, 5, 10, 15),
    success: float = 0.0,
    by: Literal["seed", "session"] | None = None,
    name: str | None = None,
    tuning: Mapping[str, Any] | None = None,
    statistics: Statistics | None = None,
) -> Report:
    """Let a policy play and return a Report.

    Args:
        system: a bundle, a system, or a `Policy`.
        turns: a session is cut after so many.
        sessions: how many run at once for each seed.
        seeds: what sessions' random streams come from; the same seeds give all policies the same sessions.
        k, learn, push: see `policy`.
        at: turns of the success rates.
        success: a turn is a success where its reward is above this.
        by: what a value is of, and so what intervals are over; None: a seed where the policy learns, else a session.
            Policies that learn and others are compared by seeds.
        name: what the report calls the policy.

    Raises:
        UsageError: arguments do not fit together, or the environment answers for others than were asked about.
    """
    if turns < 1 or sessions < 1 or not len(seeds) or len(set(seeds)) < len(seeds):
        raise UsageError("there are turns, sessions and distinct seeds, at least one of each")
    statistics = statistics or Statistics()
    plays = policy(system, k, learn=learn, push=push) if not _is_policy(system) else system
    if by == "session" and plays.learns:
        raise UsageError("sessions of a policy that learns are not independent: values are by seed")
    counted = [t for t in sorted(set(at)) if 1 <= t <= turns]
    with metered() as cost:
        with progress("turns", turns * len(seeds)) as advance:
            courses = [_play(plays, environment, seed, turns, sessions, k, success, advance) for seed in seeds]
        values = [_values(course, counted, turns) for course in courses]
        unit = by or ("seed" if plays.learns else "session")
        each = {
            one: np.stack([found[one].mean() if one != "reward" else _mean(found[one]) for found in values])
            if unit == "seed"
            else np.concatenate([found[one] for found in values])
            for one in values[0]
        }
        course_rows = _course(courses, turns, statistics)
    rows = {one: column for one, column in each.items() if not np.isnan(column).all()}
    identity = environment.identity
    n = len(next(iter(rows.values())))
    return Report(
        system=about(system, name=name, tuning=tuning),
        split={
            "name": type(environment).__name__,
            "part": None,
            "cases": fingerprint(np.array([*seeds, sessions, turns, k]), np.frombuffer(identity.encode(), np.uint8)),
        },
        protocol={
            "kind": "interactive",
            "requests": n,
            "unit": unit,
            "environment": identity,
            "turns": turns,
            "sessions": sessions,
            "seeds": list(seeds),
            "k": k,
            "learns": plays.learns,
            "push": push if plays.learns else None,
            "success": success,
            "facts": [
                f"{len(seeds)} seeds of {sessions:,} sessions",
                f"up to {turns:,} turns",
                f"lists of {k}",
                *([f"a snapshot every {'turn' if push == 1 else f'{push} turns'}"] if plays.learns else []),
                f"a value a {unit}",
            ],
            "policies": ["A turn whose reward is not known is left out of the mean reward."],
        },
        requests=_about_units(unit, seeds, sessions),
        rows={one: column.astype(np.float32) for one, column in rows.items()},
        totals={},
        glossary={one: metric for one, metric in INTERACTIVE.items() if any(r.partition("@")[0] == one for r in rows)},
        slices=pl.DataFrame(course_rows, schema=SLICE_COLUMNS, orient="row"),
        cost={"seconds": cost.seconds, "cpu_seconds": cost.cpu_seconds, "peak_mb": cost.peak_mb},
        machine=machine(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        statistics=statistics,
    )


@dataclass(frozen=True, eq=False)
class Course:
    """All turns of the sessions of one seed, a row a session [S, T]; NaN: not known, or the session was over."""

    rewards: Floats
    regrets: Floats
    stayed: NDArray[np.int64]
    first: NDArray[np.int64]  # turn of the first success, counted from 1; 0: none


def _play(
    plays: Policy[Any],
    environment: Environment[Any],
    seed: int,
    turns: int,
    sessions: int,
    k: int,
    success: float,
    advance: Any,
) -> Course:
    requests, world = environment.reset(request_seeds(sessions, seed))
    state = plays.begin(requests)
    rewards, regrets = np.full((sessions, turns), np.nan), np.full((sessions, turns), np.nan)
    stayed, first = np.zeros(sessions, dtype=np.int64), np.zeros(sessions, dtype=np.int64)
    asking = np.arange(sessions)
    knows = isinstance(environment, Truthful)
    for turn in range(turns):
        if not len(asking):
            break
        actions, state = plays.act(state, requests)
        if knows and actions.slates is not None:
            regrets[asking, turn] = environment.best(world, k) - environment.expected(world, actions.slates)  # type: ignore[attr-defined]
        feedback, requests, done, world = environment.step(world, actions)
        if len(feedback) != len(asking) or len(done) != len(asking):
            raise UsageError(f"{len(asking)} sessions were asked about, and {len(feedback)} answered")
        if feedback.reward is not None:
            rewards[asking, turn] = feedback.reward
            new = (feedback.reward > success) & (first[asking] == 0)
            first[asking[new]] = turn + 1
        stayed[asking] = turn + 1
        state = plays.observe(state, feedback, done)
        asking = asking[~done]
        if requests.n != len(asking):
            raise UsageError(f"{len(asking)} sessions are not done, and {requests.n} ask on")
        advance(1)
    return Course(rewards, regrets, stayed, first)


def _values(course: Course, at: Sequence[int], turns: int) -> dict[str, Floats]:
    """Every metric of every session [S]."""
    known = ~np.isnan(course.rewards)
    counts, total = known.sum(axis=1), np.where(known, course.rewards, 0.0).sum(axis=1)
    whole = ~np.isnan(course.regrets).all(axis=1)
    found = course.first > 0
    return {
        "reward": np.where(counts > 0, total / np.maximum(counts, 1), np.nan),
        "total": total,
        "regret": np.where(whole, np.nansum(course.regrets, axis=1), np.nan),
        **{f"success@{t}": (found & (course.first <= t)).astype(np.float64) for t in at},
        "turns": np.where(found, course.first, turns).astype(np.float64),
        "stayed": course.stayed.astype(np.float64),
        "known": counts.astype(np.float64),
    }


def _mean(values: Floats) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else math.nan


def _course(courses: Sequence[Course], turns: int, statistics: Statistics) -> list[list[Any]]:
    """Cumulative regret, and the mean reward so far, at some turns: the mean over seeds and its interval."""
    points = np.unique(np.linspace(1, turns, min(turns, POINTS)).round().astype(int))
    rows: list[list[Any]] = []
    for metric in ("reward", "regret"):
        curves = []
        for course in courses:
            values = course.rewards if metric == "reward" else course.regrets
            there = ~np.isnan(values)
            sums = np.where(there, values, 0.0).sum(axis=0).cumsum()[points - 1]
            if metric == "reward":
                counts = there.sum(axis=0).cumsum()[points - 1]
                curves.append(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))
            else:
                curves.append(sums / len(values) if there.any() else np.full(len(points), np.nan))
        table = np.stack(curves)
        if np.isnan(table).all():
            continue
        low, high = bootstrap(table, level=statistics.level, resamples=statistics.resamples, seed=statistics.seed)
        for j, point in enumerate(points.tolist()):
            mean = _mean(table[:, j])
            if not math.isnan(mean):
                rows.append(["turn", str(point), len(courses), metric, mean, float(low[j]), float(high[j])])
    return rows


def _about_units(unit: str, seeds: Sequence[int], sessions: int) -> pl.DataFrame:
    if unit == "seed":
        return pl.DataFrame({"request": np.arange(len(seeds)), "seed": list(seeds)})
    n = len(seeds) * sessions
    return pl.DataFrame(
        {
            "request": np.arange(n),
            "seed": np.repeat(np.asarray(seeds, dtype=np.int64), sessions),
            "session": np.tile(np.arange(sessions), len(seeds)),
        }
    )


def _is_policy(system: Any) -> bool:
    return hasattr(system, "learns") and all(hasattr(system, name) for name in ("begin", "act", "observe"))
