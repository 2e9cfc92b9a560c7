"""How a system learns: a program is a generator that yields stages and is sent what each one gave.
def program(self, data: Dataset) -> Program:
    self.graph = yield Precompute(bipartite, data)
    yield Train(triplets(self.graph, 2048), self.gather, self.objective, until=Plateau("ndcg@20"))
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from tastemaker.types import Dataset, Epochs, Optimiser, Plateau, Schema, SystemRef


class Precompute:
    """A pure function, kept by content: of its arguments (models: their `identity`), its own source, and `version`
    (for what it calls). What it gives is plain values, arrays, matrices, frames, and lists and mappings of them."""

    def __init__(self, function: Callable[..., Any], *args: Any, version: int = 1, **kwargs: Any) -> None:
        self.function, self.args, self.kwargs, self.version = function, args, kwargs, version


class Fit:
    """A one-shot estimate: `function(*args, **kwargs)`; with a `SystemRef` and a dataset: that system, fitted on it.

    With `rng="purpose"` the function gets a NumPy generator of its own as the keyword `rng`. `label` names the
    step, `of` says how many there will be (a sweep of an alternating method is one Fit: a run can stop between).
    """

    def __init__(
        self,
        function: Callable[..., Any] | SystemRef,
        *args: Any,
        rng: str | None = None,
        label: str | None = None,
        of: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.rng, self.label, self.of = rng, label, of


class Feed(Protocol):
    """Numbered batches of each epoch: a pure function of seed, epoch and number, so a run can stop anywhere.

    `len` counts the batches of an epoch, `start` names the seed of all streams that follow.
    live: batches depend on the system as it stands (hard negatives, rollouts): none may be made ahead of its turn.
    """

    live: bool

    def __len__(self) -> int: ...

    def start(self, seed: int) -> None: ...

    def batch(self, epoch: int, number: int) -> Batch: ...


class Batch(Protocol):
    """A frozen dataclass of arrays. `take`: the rows one process works on; `owners`, if given: each loss's user [N]."""

    def __len__(self) -> int: ...

    def take(self, rows: slice) -> Batch: ...


@dataclass(frozen=True)
class Train:
    """Gradient steps: feed -> gather(batch) -> tensors -> objective(tensors, batch) -> [N], one loss a row.

    The batch comes as the feed's own class, its arrays tensors on the system's device. Both seams are pure, so that
    a transform may wrap them. `every_epoch(epoch)` and `after_step(step)` count from 0; what they draw follows from
    the run's seed, and what they change of the system lies in its buffers, where a checkpoint finds it.
    parameters: those to move; None: all of the system.
    """

    feed: Feed
    gather: Callable[[Any], Any]
    objective: Callable[[Any, Any], Any]
    until: Epochs | Plateau
    optimiser: Optimiser = field(default_factory=Optimiser)
    every_epoch: Callable[[int], None] | None = None
    after_step: Callable[[int], None] | None = None
    parameters: Sequence[Any] | None = None


@dataclass(frozen=True)
class Alternate:
    """Several trainings in turn, an epoch of its own feed each, until the first one's end."""

    trains: Sequence[Train]


Stage: TypeAlias = Precompute | Fit | Train | Alternate
Program: TypeAlias = Generator[Stage, Any, None]


class Learns(Protocol):
    """Every system: built from config and schema, trained by its program."""

    def __init__(self, config: Any, schema: Schema) -> None: ...

    def program(self, data: Dataset) -> Program: ...


class Transform(Protocol):
    """Maps a system and its program to another program: `tastemaker fit lightgcn --with vat`."""

    def __call__(self, system: Any, program: Program, data: Dataset) -> Program: ...


class Logger(Protocol):
    """Is told what happens in training: {"event": "start" | "epoch" | "evaluation" | "end", ...}, plain values."""

    def log(self, record: Mapping[str, Any]) -> None: ...
