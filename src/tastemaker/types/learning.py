"""How long gradient steps go on, and by which rule weights move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Optimiser:
    """The update rule and what surrounds it; the engine builds it. Rows of a sparse `nn.Table` move when touched.

    clip: largest norm of the whole gradient; accumulate: batches a step; warmup: steps of a rising rate;
    schedule: what the rate does afterwards, down to 0 at the last step of the longest run;
    ema: decay of the moving average of the weights, which is what is judged and kept.
    """

    name: Literal["adam", "adamw", "adagrad", "sgd"] = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.0
    clip: float | None = None
    accumulate: int = 1
    warmup: int = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    ema: float | None = None


@dataclass(frozen=True)
class Epochs:
    """Stop after `n` epochs."""

    n: int


@dataclass(frozen=True)
class Plateau:
    """Stop when a validation metric has not risen for `patience` evaluations, `every` epochs; keep the best weights."""

    metric: str
    patience: int = 10
    every: int = 1
    most: int = 1000
