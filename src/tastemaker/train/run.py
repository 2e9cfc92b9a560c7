"""One training run: where its artefacts lie, the streams it draws from, who judges it, who is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from tastemaker.contracts import Logger, Predicts, Resources
from tastemaker.evaluate import Questions, evaluate, pointwise
from tastemaker.evaluate.predictions import METRICS as OF_PREDICTIONS
from tastemaker.evaluate.ranking import METRICS as OF_LISTS
from tastemaker.train.codec import recall, store
from tastemaker.types import Cases, Dataset, Split, UsageError, generator

JUDGED = 10_000  # validation cases that are asked; more would cost a fast system longer than an epoch
QUESTIONS = 50_000  # validation questions that are asked, by the pointwise protocol
PRECISIONS = ("fp32", "bf16")


def is_first_process() -> bool:
    """Whether this is the only process of a run, or the one of several that writes and speaks."""
    return os.environ.get("RANK", "0") == "0"


class NeedsJudge(Exception):
    """A stage is to stop by validation figures, and nobody is there to give them."""


class Judge(Protocol):
    """Says how good a system is as it stands, higher is better: any evaluation protocol."""

    def __call__(self, system: Any, metric: str) -> float: ...


@dataclass(frozen=True)
class Ranking:
    """Judges by the ranking protocol over the full catalogue of `train`, on at most `JUDGED` of the cases."""

    cases: Cases
    train: Dataset

    def __call__(self, system: Any, metric: str) -> float:
        return evaluate(system, self.cases, train=self.train, metrics=[metric]).value(metric)

    @classmethod
    def of(cls, split: Split, seed: int = 0) -> Ranking:
        """The valid part of a split."""
        cases = split.cases("valid")
        if len(cases) > JUDGED:
            picked = generator(seed, "judged").choice(len(cases), JUDGED, replace=False)
            picked.sort()
            cases = cases.take(picked)
        if not len(cases):
            raise UsageError("the validation part has no cases, so training cannot be stopped by it")
        return cls(cases, split.train)


@dataclass(frozen=True)
class Pointwise:
    """Judges by the pointwise protocol, on at most `QUESTIONS` questions of the valid part; what is better low is given
    negative."""

    split: Split
    seed: int = 0
    asked: dict[tuple[str, ...], Questions] = field(default_factory=dict)

    def __call__(self, system: Any, metric: str) -> float:
        tasks = tuple(system.tasks) if isinstance(system, Predicts) else ("choice",)
        if tasks not in self.asked:
            self.asked[tasks] = Questions.of(self.split, "valid", tasks, most=QUESTIONS, seed=self.seed)
        questions = self.asked[tasks]
        value = pointwise(system, self.split, part="valid", questions=questions, metrics=[metric]).value(metric)
        return value if OF_PREDICTIONS[metric].better == "high" else -value


@dataclass(frozen=True)
class Validation:
    """Judges by the protocol that a metric belongs to, on the valid part of a split.

    "auc" is a figure of both protocols: of predictions for a system that predicts tasks, else of ranked catalogues.
    """

    split: Split
    seed: int = 0

    @cached_property
    def ranking(self) -> Ranking:
        return Ranking.of(self.split, self.seed)

    @cached_property
    def pointwise(self) -> Pointwise:
        return Pointwise(self.split, self.seed)

    def __call__(self, system: Any, metric: str) -> float:
        of_predictions = metric in OF_PREDICTIONS and (metric not in OF_LISTS or isinstance(system, Predicts))
        return (self.pointwise if of_predictions else self.ranking)(system, metric)


@dataclass(frozen=True)
class Hardware:
    """On what, and how, gradients are computed.

    device: "auto" (the accelerator, where there is one), "cpu", "cuda", "cuda:1", "mps"
    precision: "fp32", or "bf16" for mixed precision; slow on processors without such units
    compile: let torch compile the loss; pays on accelerators
    """

    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(f"precision is one of {', '.join(PRECISIONS)}, got {self.precision!r}")


@dataclass(eq=False)
class Run:
    """What stages are run with.

    folder: where finished stages and checkpoints are kept; None: nowhere
    cache: where precomputed artefacts are kept; None: nowhere
    judge: decides when training has gone far enough; None: nobody can
    warm: the fitted bundle whose weights training begins with; None: it begins with those the constructor drew
    carried: what of it was taken
    fixed: epochs to train for, by the number of the stage, where that is known already
    deadline: `time.monotonic()` after which training stops where it is
    checkpoint_seconds: how often a training stage is saved
    resources: what is bound to systems that lean on some
    told: what training stages found, in their order
    stage: number of the stage that is under way
    """

    seed: int
    system: Any = None
    name: str = ""
    folder: Path | None = None
    cache: Path | None = None
    judge: Judge | None = None
    warm: Any = None
    carried: dict[str, Any] = field(default_factory=dict)
    fixed: Mapping[int, int] = field(default_factory=dict)
    hardware: Hardware = Hardware()
    deadline: float | None = None
    checkpoint_seconds: float = 60.0
    loggers: Sequence[Logger] = ()
    resources: Resources | None = None
    told: list[dict[str, Any]] = field(default_factory=list)
    stage: int = 0

    @property
    def file(self) -> Path | None:
        """Where the value of this stage is kept."""
        return None if self.folder is None else self.folder / "stages" / f"{self.stage:04d}.safetensors"

    def kept(self, make: Callable[[], Any]) -> Any:
        """The value of this stage: as stored by an earlier run, else made now and stored."""
        if self.file is None:
            return make()
        if self.file.is_file():
            return recall(self.file)
        value = make()
        store(value, self.file)
        return value

    def log(self, event: str, **facts: Any) -> None:
        for logger in self.loggers:
            logger.log({"event": event, "system": self.name, "stage": self.stage, **facts})
