"""Where an experiment stands, and what to do about it.

A `Result` is what `serve.analysis` computes of the log. `promote`, `roll_back` and `advise` say what should be served
next; they are pure, and change nothing: who carries a `Decision` out writes it down first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import polars as pl

from tastemaker.serve.experiments import Experiment
from tastemaker.types import NotFound, nearest

Verdict = Literal["better", "worse", "not yet", "harm: stop", "invalid", "none"]
"""Of an arm the first three; of an experiment also: a guardrail is harmed, the split is broken, nothing is compared."""


@dataclass(frozen=True)
class ArmFigures:
    """The primary metric in one arm; `low` and `high` hold at all times. Of interleaving: what its items earned."""

    arm: str
    units: int
    lists: int
    total: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Contrast:
    """An arm against the control.

    difference, low, high: arm - control, or in interleaving the share of wins - 0.5; ends hold at all times
    lift, lift_low, lift_high: arm / control - 1; NaN in interleaving
    p: always valid, and corrected for the number of arms
    since: when p fell to alpha, microseconds; None: it has not
    wins, losses, ties: lists, in interleaving
    """

    arm: str
    metric: str
    difference: float
    low: float
    high: float
    lift: float
    lift_low: float
    lift_high: float
    p: float
    since: int | None
    verdict: Verdict
    wins: int = 0
    losses: int = 0
    ties: int = 0


@dataclass(frozen=True)
class Guard:
    """A guardrail in one arm. harmed: more than the tolerated share is lost for certain; fine: certainly not."""

    arm: str
    metric: str
    mean: float
    control: float
    lift: float
    lift_low: float
    lift_high: float
    tolerate: float
    state: Literal["fine", "inconclusive", "harmed"]
    since: int | None


@dataclass(frozen=True)
class SplitCheck:
    """Whether units came in the planned shares (in interleaving: whether each arm had the first pick as often)."""

    counts: tuple[int, ...]
    planned: tuple[float, ...]
    p: float
    ok: bool


@dataclass(frozen=True)
class Shadow:
    """The unseen lists of an arm beside those that were shown; means over lists, latency in milliseconds.

    missing: lists shown beside which this arm has none
    """

    arm: str
    lists: int
    missing: int
    rbo: float
    jaccard: float
    first: float
    latency_median: float
    latency_p95: float
    shown_latency_median: float
    shown_latency_p95: float


@dataclass(frozen=True, eq=False)
class Result:
    """Where an experiment stands.

    at: the moment of the analysis, microseconds
    best: the arm to promote, if one is better than the control and none of its guardrails is harmed
    left_out: lists that do not count, by reason
    path: time, arm, units, lists, mean, difference, low, high, p; at most 200 moments for each arm but the control
    """

    experiment: str
    kind: str
    at: int
    alpha: float
    control: str
    metric: str
    arms: tuple[ArmFigures, ...]
    contrasts: tuple[Contrast, ...]
    guardrails: tuple[Guard, ...]
    split: SplitCheck
    shadows: tuple[Shadow, ...]
    verdict: Verdict
    best: str | None
    left_out: Mapping[str, int]
    warnings: tuple[str, ...]
    path: pl.DataFrame = field(repr=False)

    def contrast(self, arm: str) -> Contrast:
        """An arm against the control, by name."""
        found = {one.arm: one for one in self.contrasts}
        if arm not in found:
            raise NotFound(f"no arm {arm!r} is compared with the control", hint=nearest(arm, found))
        return found[arm]

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is not known or has no bound is None. The path is a list for each column."""
        whole = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "path"}
        plain = {
            name: [asdict(one) for one in value]
            if isinstance(value, tuple) and name != "warnings"
            else asdict(value)
            if isinstance(value, SplitCheck)
            else value
            for name, value in whole.items()
        }
        found: dict[str, Any] = _finite({**plain, "path": self.path.to_dict(as_series=False)})
        return found


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


# -- what to do about it


@dataclass(frozen=True)
class Decision:
    """What should be done, and why. Nothing is done by it.

    surface: what requests ask for; serve: what should answer them from now on, when the experiment is as given here
    """

    action: Literal["promote", "roll back", "wait"]
    surface: str
    serve: str
    arm: str
    experiment: Experiment
    why: str


def promote(
    experiment: Experiment, result: Result, now: int, *, arm: str | None = None, force: bool = False
) -> Decision:
    """Serve an arm (default: the best) to everybody and end the experiment, if the result bears it out.

    force: promote all the same; for a person who knows more than the figures.
    """
    name = result.best if arm is None else arm
    if name is not None and name not in experiment.arms:
        raise NotFound(f"experiment {experiment.name} has no arm {name!r}", hint=nearest(name, experiment.names))
    doubt = None if force and name is not None else _doubt(experiment, result, name)
    if name is None or doubt is not None:
        return _wait(experiment, doubt or "no arm is better than the control yet")
    ended = experiment.stop(now) if experiment.state == "running" else experiment
    why = "by hand" if force else f"{name} is better than {experiment.control} on {result.metric}"
    return Decision("promote", experiment.surface, experiment.arms[name].serve, name, ended, why)


def roll_back(experiment: Experiment, now: int, why: str = "by hand") -> Decision:
    """Serve the control to everybody and end the experiment."""
    ended = experiment.stop(now) if experiment.state == "running" else experiment
    return Decision("roll back", experiment.surface, experiment.surface, experiment.control, ended, why)


def advise(experiment: Experiment, result: Result, now: int) -> Decision:
    """What the result calls for: roll back a harm or a broken split at once, promote what is better, else wait."""
    if result.verdict == "invalid":
        return roll_back(experiment, now, "the split is not as planned, so nothing can be learnt from this run")
    if result.verdict == "harm: stop":
        harmed = ", ".join(f"{g.arm} on {g.metric}" for g in result.guardrails if g.state == "harmed")
        return roll_back(experiment, now, f"harm: {harmed}")
    if result.verdict == "worse":
        return roll_back(experiment, now, f"{experiment.control} is better than all other arms on {result.metric}")
    return promote(experiment, result, now)


def _wait(experiment: Experiment, why: str) -> Decision:
    return Decision("wait", experiment.surface, experiment.surface, experiment.control, experiment, why)


def _doubt(experiment: Experiment, result: Result, arm: str | None) -> str | None:
    """Why an arm should not be promoted; None: nothing speaks against it."""
    if result.verdict == "invalid":
        return "the split is not as planned"
    if arm is None or arm == experiment.control or result.contrast(arm).verdict != "better":
        return None if arm is None else f"{arm} is not better than {experiment.control} for certain"
    for guard in result.guardrails:
        if guard.arm == arm and guard.state != "fine":
            return f"{guard.metric} of {arm} is {guard.state}: it must not lose more than {guard.tolerate:.3g} of it"
    return None
