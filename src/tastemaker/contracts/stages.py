"""How a system learns: a program is a generator that yields stages and is sent what each one gave.

def program(self, data: Dataset) -> Program:
    self.graph = yield Precompute(bipartite, data)
    self.weights = yield Fit(closed_form, self.graph, self.config.reg)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from tastemaker.types import Dataset


class Precompute:
    """A pure function of its arguments, kept by content: of them, of the function's own source, of `version`.

    Raise `version` when something the function calls has changed.
    """

    def __init__(self, function: Callable[..., Any], *args: Any, version: int = 1, **kwargs: Any) -> None:
        self.function, self.args, self.kwargs, self.version = function, args, kwargs, version


class Fit:
    """A one-shot estimate: `function(*args, **kwargs)`.

    With `rng="purpose"` the function gets a NumPy generator of its own as the keyword `rng`. `label` names the
    step, `of` says how many there will be (a sweep of an alternating method is one Fit: a run can stop between).
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *args: Any,
        rng: str | None = None,
        label: str | None = None,
        of: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.rng, self.label, self.of = rng, label, of


@dataclass(frozen=True)
class Optimiser:
    """Which update rule, and its settings; the engine builds it."""

    name: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True)
class Epochs:
    """Stop after `n` epochs."""

    n: int


@dataclass(frozen=True)
class Plateau:
    """Stop when a validation metric has not risen for `patience` evaluations; keep the best weights."""

    metric: str
    patience: int = 10
    every: int = 1
    most: int = 1000


class Feed(Protocol):
    """Turns a dataset into typed batches, and can be put back where it was."""

    def __iter__(self) -> Any: ...

    def __len__(self) -> int: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Train:
    """Gradient steps: feed -> gather(batch) -> tensors -> objective(tensors, batch) -> [N], one loss a row."""

    feed: Feed
    gather: Callable[[Any], Any]
    objective: Callable[[Any, Any], Any]
    until: Epochs | Plateau
    optimiser: Optimiser = field(default_factory=Optimiser)
    every_epoch: Callable[[int], None] | None = None
    after_step: Callable[[int], None] | None = None


@dataclass(frozen=True)
class Alternate:
    """Several trainings in turn, an epoch each."""

    trains: Sequence[Train]


@dataclass(frozen=True)
class Rollout:
    """Act or generate, get a reward, learn from it."""

    policy: Any
    environment: Any
    objective: Callable[..., Any]
    logp: Callable[..., Any]
    until: Epochs | Plateau
    optimiser: Optimiser = field(default_factory=Optimiser)


Stage: TypeAlias = Precompute | Fit | Train | Alternate | Rollout
Program: TypeAlias = Generator[Stage, Any, None]


class Learns(Protocol):
    """Every system: built from config and schema, trained by its program."""

    def __init__(self, config: Any, schema: Any) -> None: ...

    def program(self, data: Dataset) -> Program: ...


class Transform(Protocol):
    """Maps a system and its program to another program: `tastemaker fit lightgcn --with vat`."""

    def __call__(self, system: Any, program: Program, data: Dataset) -> Program: ...
