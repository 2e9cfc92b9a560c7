"""BPR with the penalty of what it touches, as one step of a graph instead of fifteen.

At the width of a factorisation the arithmetic of a batch takes less time than the bookkeeping of the operations that
make it up, so on a CPU one kernel computes losses and one their gradients. Elsewhere, and when torch compiles, the
plain formula is used, which is the reference here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from tastemaker.nn import losses


def penalised_bpr(users: Tensor, items: Tensor, reg: float = 0.0) -> Tensor:
    """BPR of the first item of each row against the others, plus reg / 2 times the squared length of all vectors.

    Where items are one dimension wider than users, the last one is a bias that is added to the score.

    Shapes: users [B, D], items [B, 1 + n, D] or [B, 1 + n, D + 1]; returns [B].
    Ref: Rendle et al., "BPR", UAI 2009, arXiv:1205.2618, section 4.
    """
    if users.device.type == "cpu" and users.dtype == items.dtype == torch.float32 and not torch.compiler.is_compiling():
        value: Tensor = _PenalisedBPR.apply(users, items, reg)  # type: ignore[no-untyped-call]
        return value
    return plain_penalised_bpr(users, items, reg)


def plain_penalised_bpr(users: Tensor, items: Tensor, reg: float = 0.0) -> Tensor:
    """The formula, operation by operation."""
    dim = users.shape[-1]
    scores = (users.unsqueeze(1) * items[..., :dim]).sum(dim=-1) + items[..., dim:].sum(dim=-1)
    lengths = users.square().sum(dim=-1) + items.square().sum(dim=(1, 2))
    return losses.bpr(scores[:, 0], scores[:, 1:]) + reg / 2 * lengths


def scores_of(users: Tensor, items: Tensor, user_numbers: NDArray[Any], item_numbers: NDArray[Any]) -> Tensor:
    """Inner products of rows of two tables, plus the items' bias where they are one dimension wider; no gradient.

    Shapes: users [U, D], items [I, D] or [I, D + 1], user_numbers [B], item_numbers [B, m]; returns [B, m].
    """
    users, items = users.detach(), items.detach()
    if users.device.type == "cpu" and users.dtype == items.dtype == torch.float32:
        out = np.empty(item_numbers.shape, dtype=np.float32)
        _scores(users.contiguous().numpy(), items.contiguous().numpy(), user_numbers, item_numbers, out)
        return torch.from_numpy(out)
    rows = items[torch.as_tensor(item_numbers, device=items.device)]
    user = users[torch.as_tensor(user_numbers, device=users.device)].unsqueeze(1)
    dim = users.shape[1]
    return (user * rows[..., :dim]).sum(dim=-1) + rows[..., dim:].sum(dim=-1)


class _PenalisedBPR(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, reg: float) -> Tensor:  # type: ignore[override]
        users, items = users.detach().contiguous(), items.detach().contiguous()
        rows, slopes = np.empty(len(users), dtype=np.float32), np.empty(items.shape[:2], dtype=np.float32)
        _losses(users.numpy(), items.numpy(), np.float32(reg / 2), rows, slopes)
        ctx.save_for_backward(users, items)
        ctx.reg, ctx.slopes = reg, slopes
        return torch.from_numpy(rows)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, given: Tensor) -> Any:  # type: ignore[override]
        users, items = ctx.saved_tensors
        of_users, of_items = torch.empty_like(users), torch.empty_like(items)
        u, i, of_u, of_i = users.numpy(), items.numpy(), of_users.numpy(), of_items.numpy()
        _gradients(u, i, given.contiguous().numpy(), of_u, of_i, np.float32(ctx.reg), ctx.slopes)
        return of_users, of_items, None


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})  # type: ignore[untyped-decorator]
def _losses(users: Any, items: Any, half: Any, rows: Any, slopes: Any) -> None:
    """slopes [B, 1 + n]: derivatives of a row's loss by its scores."""
    n, dim, width = items.shape[1] - 1, users.shape[1], items.shape[2]
    share = np.float32(1.0) / np.float32(max(n, 1))
    for b in range(len(users)):
        user, positive, total = users[b], np.float32(0.0), np.float32(0.0)
        length = np.float32(0.0)
        for d in range(dim):
            length += user[d] * user[d]
        slopes[b, 0] = np.float32(0.0)
        for j in range(n + 1):
            item = items[b, j]
            score = np.float32(0.0)
            for d in range(dim):
                score += user[d] * item[d]
                length += item[d] * item[d]
            if width > dim:
                score += item[dim]
                length += item[dim] * item[dim]
            if j == 0:
                positive = score
                continue
            gap = score - positive
            shrunk = np.exp(-abs(gap))
            total += max(gap, np.float32(0.0)) + np.log1p(shrunk)
            slope = share / (np.float32(1.0) + shrunk) if gap >= 0 else share * shrunk / (np.float32(1.0) + shrunk)
            slopes[b, j] = slope
            slopes[b, 0] -= slope
        rows[b] = share * total + half * length


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})  # type: ignore[untyped-decorator]
def _gradients(users: Any, items: Any, given: Any, of_users: Any, of_items: Any, reg: Any, slopes: Any) -> None:
    dim, width = users.shape[1], items.shape[2]
    for b in range(len(users)):
        user, grown, of_user = users[b], given[b], of_users[b]
        decay = grown * reg
        for d in range(dim):
            of_user[d] = decay * user[d]
        for j in range(items.shape[1]):
            item, of_item, slope = items[b, j], of_items[b, j], grown * slopes[b, j]
            for d in range(dim):
                of_user[d] += slope * item[d]
                of_item[d] = slope * user[d] + decay * item[d]
            if width > dim:
                of_item[dim] = slope + decay * item[dim]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})  # type: ignore[untyped-decorator]
def _scores(users: Any, items: Any, user_numbers: Any, item_numbers: Any, out: Any) -> None:
    dim, width = users.shape[1], items.shape[1]
    for b in range(len(user_numbers)):
        user = users[user_numbers[b]]
        for j in range(item_numbers.shape[1]):
            item = items[item_numbers[b, j]]
            score = np.float32(0.0)
            for d in range(dim):
                score += user[d] * item[d]
            out[b, j] = score + item[dim] if width > dim else score
