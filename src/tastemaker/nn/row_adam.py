"""Adam for tables of which a step touches few rows: only those rows, and their moments, move.

The update rule is `torch.optim.SparseAdam`'s, which is the reference here: moments decay at a step only where a row
has a gradient, and the bias correction counts all steps. On a CPU one kernel sums the gradients of each row and
updates it in the same pass; elsewhere the rows are gathered and scattered.

Ref: Kingma, Ba, "Adam", arXiv:1412.6980, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numba import njit


class RowAdam(torch.optim.Optimizer):
    """Adam over parameters [n, D] whose gradients are sparse in rows.

    Args:
        parameters: tables.
        lr, betas, eps: as in Adam.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move the rows that have a gradient."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is None:
                    continue
                state = self.state[table]
                if not state:
                    state["step"] = torch.zeros(())
                    state["first"] = torch.zeros_like(table)
                    state["second"] = torch.zeros_like(table)
                state["step"] += 1
                self._move(table, table.grad, state, group)

    def _move(self, table: Any, gradient: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        step, (beta1, beta2) = float(state["step"]), group["betas"]
        size = group["lr"] * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
        if not gradient.is_sparse:
            gradient = gradient.to_sparse(1)
        if table.device.type == "cpu" and table.dtype == torch.float32 and table.is_contiguous():
            _move_rows(table, gradient, state, size, beta1, beta2, group["eps"])
            return
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
        first = state["first"][rows].mul_(beta1).add_(values, alpha=1 - beta1)
        second = state["second"][rows].mul_(beta2).addcmul_(values, values, value=1 - beta2)
        state["first"][rows], state["second"][rows] = first, second
        table.index_add_(0, rows, first / (second.sqrt() + group["eps"]), alpha=-size)


def _move_rows(
    table: Any, gradient: Any, state: dict[str, Any], size: float, beta1: float, beta2: float, eps: float
) -> None:
    rows, values = gradient._indices()[0].contiguous().numpy(), gradient._values().contiguous().numpy()
    weights, first, second = (tensor.detach().numpy() for tensor in (table, state["first"], state["second"]))
    slots, first_of = np.full(len(weights), -1, dtype=np.int32), np.empty(len(rows), dtype=np.int64)
    starts, order = np.empty(len(rows) + 1, dtype=np.int64), np.empty(len(rows), dtype=np.int64)
    n = _group(rows, slots, first_of, starts, order)
    _update(first_of[:n], starts, order, values, weights, first, second, size, beta1, beta2, eps)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _group(rows: Any, slots: Any, first_of: Any, starts: Any, order: Any) -> int:
    """Places of each row's gradients: those of the s-th row met are order[starts[s] : starts[s + 1]]."""
    n = 0
    starts[:] = 0
    for row in rows:
        if slots[row] < 0:
            slots[row] = n
            first_of[n] = row
            n += 1
        starts[slots[row] + 1] += 1
    for s in range(n):
        starts[s + 1] += starts[s]
    filled = starts[:n].copy()
    for place in range(len(rows)):
        slot = slots[rows[place]]
        order[filled[slot]] = place
        filled[slot] += 1
    return n


# Serial on purpose: a step touches so little that threads would spend longer meeting than working.
@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})  # type: ignore[untyped-decorator]
def _update(
    rows: Any,
    starts: Any,
    order: Any,
    values: Any,
    table: Any,
    first: Any,
    second: Any,
    size: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    b1, b2, c1, c2 = np.float32(beta1), np.float32(beta2), np.float32(1 - beta1), np.float32(1 - beta2)
    step, least, dim = np.float32(size), np.float32(eps), table.shape[1]
    gradient = np.empty(dim, dtype=np.float32)
    for s in range(len(rows)):
        one = values[order[starts[s]]]
        for d in range(dim):
            gradient[d] = one[d]
        for p in range(starts[s] + 1, starts[s + 1]):
            one = values[order[p]]
            for d in range(dim):
                gradient[d] += one[d]
        row, m, v = table[rows[s]], first[rows[s]], second[rows[s]]
        for d in range(dim):
            mean = b1 * m[d] + c1 * gradient[d]
            square = b2 * v[d] + c2 * gradient[d] * gradient[d]
            m[d], v[d] = mean, square
            row[d] -= step * mean / (np.sqrt(square) + least)
