"""A feed: rows in a new order every epoch, cut into batches that can each be made on their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tastemaker.types import UsageError, generator

B = TypeVar("B")
Rows = NDArray[np.int64]
Make = Callable[[Rows, np.random.Generator], B]


class RowFeed(Generic[B]):
    """Batches of `make(rows, rng)`, where rows are numbers from 0 to `n_rows` in an order drawn anew every epoch.

    A batch depends on seed, epoch and its number alone: any of them can be made first, in any process. So the
    cursor is all the state there is, and a run that is taken up again sees what it would have seen.

    Args:
        n_rows: how many rows there are.
        batch_size: rows a batch; the last one of an epoch is shorter.
        make: turns row numbers [B] into a batch, drawing from the generator it is given alone.
        shuffle: whether rows are put in a new order every epoch.
        live: whether `make` looks at the system as it stands, so that no batch may be made ahead of its turn.
        lengths: [n_rows] of ragged rows: those of a batch are put in order of length, which attention makes use of
            (`tastemaker.nn.ragged.Layout.bands`).
    """

    def __init__(
        self,
        n_rows: int,
        batch_size: int,
        make: Make[B],
        *,
        shuffle: bool = True,
        live: bool = False,
        lengths: Rows | None = None,
    ) -> None:
        if n_rows < 1:
            raise UsageError("there is nothing to learn from: the training data gives not one example")
        if batch_size < 1:
            raise UsageError(f"a batch has at least one row, got {batch_size}")
        self.n_rows, self.batch_size, self.make = n_rows, batch_size, make
        self.shuffle, self.live, self.lengths = shuffle, live, lengths
        self.start(0)

    def __len__(self) -> int:
        return -(-self.n_rows // self.batch_size)

    def start(self, seed: int) -> None:
        """Draw from streams of `seed`, from the first batch of the first epoch on."""
        self.seed, self.epoch, self.number = seed, 0, 0
        self._order: tuple[int, Rows] | None = None

    def batch(self, epoch: int, number: int) -> B:
        """The batch of this number in this epoch; changes nothing."""
        if not 0 <= number < len(self):
            raise UsageError(f"the batches of an epoch run from 0 to {len(self) - 1}, there is no number {number}")
        start, stop = number * self.batch_size, min((number + 1) * self.batch_size, self.n_rows)
        rows = self._order_of(epoch)[start:stop] if self.shuffle else np.arange(start, stop)
        if self.lengths is not None:
            rows = rows[np.argsort(self.lengths[rows], kind="stable")]
        return self.make(rows, generator(self.seed, "batch", epoch, number))

    def _order_of(self, epoch: int) -> Rows:
        kept = self._order
        if kept is None or kept[0] != epoch:
            kept = self._order = (epoch, generator(self.seed, "order", epoch).permutation(self.n_rows))
        return kept[1]

    def __iter__(self) -> Iterator[B]:
        """What is left of the epoch at the cursor; afterwards the cursor stands at the next epoch's start."""
        while self.number < len(self):
            self.number += 1
            yield self.batch(self.epoch, self.number - 1)
        self.epoch, self.number = self.epoch + 1, 0

    def state(self) -> dict[str, int]:
        """Where the cursor stands."""
        return {"seed": self.seed, "epoch": self.epoch, "number": self.number}

    def restore(self, state: dict[str, int]) -> None:
        """Put the cursor where `state` says."""
        self.start(state["seed"])
        self.epoch, self.number = state["epoch"], state["number"]


def tensors(batch: Any, device: Any) -> Any:
    """The batch with its arrays as tensors on `device`; no copy on the host where none is needed."""
    import torch

    if not is_dataclass(batch) or isinstance(batch, type):
        raise UsageError(f"a batch is a frozen dataclass of arrays, got {type(batch).__name__}")
    moved = {
        f.name: torch.from_numpy(value).to(device, non_blocking=True)
        for f in fields(batch)
        if isinstance(value := getattr(batch, f.name), np.ndarray)
    }
    return replace(batch, **moved)
