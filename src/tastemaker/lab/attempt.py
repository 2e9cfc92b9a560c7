"""One attempt of a search: fit a system with some settings, judge it, and say what came of it, whatever it was."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from tastemaker.contracts import Logger, SystemInfo
from tastemaker.evaluate import METRICS, evaluate
from tastemaker.evaluate.ranking import plan
from tastemaker.train import Bundle, Hardware, Ranking, fit
from tastemaker.types import TastemakerError, UsageError
from tastemaker.types.meter import metered

State = Literal["done", "unfinished", "late", "pruned", "failed"]
STATES: Mapping[State, str] = {
    "done": "trained to its end",
    "unfinished": "training was cut by the time it was given",
    "late": "there was no value yet when time was out",
    "pruned": "stopped, since others were better at the same point of their training",
    "failed": "could not be trained or judged",
}


class Pruned(Exception):
    """Raised by whoever watches a training and has seen enough of it."""


@dataclass(frozen=True)
class Goal:
    """The metric a search looks at; values of a goal are higher where they are better."""

    metric: str
    high: bool = True

    @classmethod
    def of(cls, metric: str) -> Goal:
        """From a metric's name, "ndcg@10"; without a cut-off it is at 10.

        Raises:
            NotFound: there is no such metric.
            UsageError: neither direction of it is better.
        """
        (name, ks) = next(iter(plan([metric], (10,), {"popularity"}).items()))
        if METRICS[name].better is None:
            raise UsageError(
                f"{metric} is neither better when high nor when low: nothing can be chosen by it",
                hint="search by an accuracy, as ndcg@10 or recall@20",
            )
        return cls(f"{name}@{ks[0]}" if ks else name, METRICS[name].better == "high")

    @property
    def k(self) -> int:
        """Its cut-off; 10 where it has none."""
        return int(self.metric.partition("@")[2] or 10)

    def worth(self, value: float) -> float:
        """A value of the metric as the goal has it; applied twice it gives the metric's value back."""
        return value if self.high else -value


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt.

    value: how good it was found, higher is better; None: nothing was found
    seconds: of fitting and judging together
    rate: requests a second that it answered while it was judged
    epochs: the best epoch of each training stage, by the stage's number as text
    course: seconds since the attempt began, and the best validation figure of training by then
    rising: training was cut while it still got better
    """

    state: State
    value: float | None = None
    reason: str = ""
    seconds: float = 0.0
    fit_seconds: float = 0.0
    judge_seconds: float = 0.0
    peak_mb: float = 0.0
    rate: float = 0.0
    epochs: Mapping[str, int] | None = None
    course: Sequence[Sequence[float]] = ()
    rising: bool = False

    @property
    def unfinished(self) -> bool:
        """Whether more time might give more."""
        return self.state in ("unfinished", "late")

    def to_json(self) -> dict[str, Any]:
        """As plain values; costs are rounded, the value is not, so that what was equal stays equal."""
        found = {n: round(v, 6) if isinstance(v, float) and n != "value" else v for n, v in asdict(self).items()}
        found["course"] = [[round(float(at), 3), round(float(value), 6)] for at, value in self.course]
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Outcome:
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in found.items() if name in known})


class Course:
    """A logger that notes when training was judged and how good it was by then."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.points: list[tuple[float, float]] = []

    def log(self, record: Mapping[str, Any]) -> None:
        if record["event"] == "evaluation":
            self.points.append((time.monotonic() - self.began, float(record["best"])))


def attempt(
    info: SystemInfo,
    judge: Ranking,
    settings: Mapping[str, Any],
    goal: Goal,
    *,
    seed: int = 0,
    seconds: float | None = None,
    run: Path | None = None,
    loggers: Sequence[Logger] = (),
    hardware: Hardware | None = None,
    histories: bool = False,
) -> tuple[Bundle | None, Outcome]:
    """Fit on `judge.train` and judge; errors, and `Pruned` raised by a logger, become an outcome.

    seconds: training by gradients stops when so many have passed; other training knows no clock.
    run: a folder in which a training cut by `seconds` goes on next time.
    """
    course = Course()
    bundle: Bundle | None = None
    with metered() as cost:
        try:
            bundle = fit(
                info.cls,
                judge.train,
                settings,
                seed=seed,
                judge=judge,
                seconds=seconds,
                run=run,
                checkpoint_seconds=20.0,
                loggers=[course, *loggers],
                hardware=hardware,
                histories=histories,
            )
            report = evaluate(bundle, judge.cases, train=judge.train, metrics=[goal.metric], slices=())
            value = goal.worth(report.value(goal.metric))
            found = _trained(bundle, value)
        except Pruned as error:
            found = {"state": "pruned", "reason": str(error)}
        except TastemakerError as error:
            found = {"state": "failed", "reason": error.message}
        except Exception as error:  # a fault of one system must not end a search over many
            found = {"state": "failed", "reason": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
    if bundle is not None and "value" in found:
        fitted = bundle.about["fit"]["seconds"]
        found |= {
            "fit_seconds": fitted,
            "judge_seconds": max(0.0, cost.seconds - fitted),
            "rate": report.cost["requests_per_second"],
        }
    return bundle, Outcome(**found, seconds=cost.seconds, peak_mb=cost.peak_mb, course=course.points)


def _trained(bundle: Bundle, value: float) -> dict[str, Any]:
    """How training ended."""
    stages = bundle.about.get("training", [])
    cut = [stage for stage in stages if stage["stopped"] == "out of time"]
    epochs = {str(stage["stage"]): int(stage["best_epoch"]) for stage in stages}
    if math.isnan(value):
        return {"state": "failed", "reason": "the metric is not defined for any case", "epochs": epochs}
    if not cut:
        return {"state": "done", "value": value, "epochs": epochs}
    judged = [row[cut[0]["metric"]] for row in cut[0]["evaluations"] if cut[0]["metric"] in row]
    rising = len(judged) < 3 or max(judged) in judged[-max(2, len(judged) // 3) :]
    return {"state": "unfinished", "value": value, "epochs": epochs, "rising": rising}
