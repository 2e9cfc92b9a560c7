"""Several processes that train one system together. Without `torchrun` there is one, and nothing here does anything."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from typing import Any

import torch

from tastemaker.types import optional


class Processes:
    """The processes of this run, through accelerate; which is imported only where there is more than one.

    Every process makes every batch and works on its share of the rows. Gradients are summed over processes and
    divided by the rows of all, so the step is that of one process on the whole batch, but for rounding.
    """

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.accelerator: Any = None
        if self.size > 1:
            accelerate = optional("accelerate", extra="ddp", why="training in several processes")
            self.accelerator = accelerate.Accelerator(cpu=not torch.cuda.is_available())

    @property
    def first(self) -> bool:
        """Whether this process is the one that judges, writes and speaks."""
        return self.rank == 0

    def share(self, batch: Any) -> Any:
        """This process's rows of a batch."""
        if self.size == 1:
            return batch
        bounds = [len(batch) * rank // self.size for rank in range(self.size + 1)]
        return batch.take(slice(bounds[self.rank], bounds[self.rank + 1]))

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter], rows: int) -> int:
        """Sum gradients over processes, in place, and say how many rows they come from."""
        if self.size == 1:
            return rows
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dense = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
            parameter.grad = self.accelerator.reduce(dense, "sum")
        total = self.accelerator.reduce(torch.tensor(rows, device=self.accelerator.device), "sum")
        return int(total)

    def agree(self, value: float) -> float:
        """The first process's value, in every process."""
        if self.size == 1:
            return value
        told = torch.tensor(value if self.first else 0.0, dtype=torch.float64, device=self.accelerator.device)
        return float(self.accelerator.reduce(told, "sum"))


@cache
def processes() -> Processes:
    return Processes()
