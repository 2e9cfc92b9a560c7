"""Cross-entropy over a whole catalogue without its table of scores.

Scores are made for a strip of rows at a time and are still in the cache when they are turned into losses and their
gradients. A strip takes a fixed size, or that of the items' vectors where this is larger, whatever the rows.
`F.cross_entropy(hidden @ items.T + bias, targets, reduction="none")` is the reference.

M rows, I items, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tastemaker.nn.compiling import left_alone

CELLS = {"cpu": 1 << 18}  # scores of one strip: 1 MB, so that they stay in the cache
CELLS_ELSEWHERE = 1 << 25


def catalogue_softmax(hidden: Tensor, items: Tensor, targets: Tensor, bias: Tensor | None = None) -> Tensor:
    """-log of the softmax share of each row's target among all items.

    Shapes: hidden [M, D], items [I, D], targets [M], bias [I]; returns [M].
    Ref: chunks with gradients made on the way forward: Hsu et al., "Liger kernel", arXiv:2410.10989, section 3.2;
        here rows keep their own losses, so they may be weighed afterwards.
    """
    losses: Tensor = _by_strips(hidden, items, targets, bias)
    return losses


class _CatalogueSoftmax(torch.autograd.Function):
    """Losses, and the gradients of their plain sum; where rows turn out to weigh differently, these are made anew."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, items: Tensor, targets: Tensor, bias: Tensor | None) -> Tensor:
        ctx.type = _autocast(hidden)
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        losses, *gradients = _sweep(hidden, items, targets, bias, None, ctx.type, wanted)
        ctx.biased = bias is not None
        ctx.save_for_backward(hidden, items, targets, *([bias] if ctx.biased else []), *gradients)
        return losses

    @staticmethod
    def backward(ctx: Any, weights: Tensor) -> Any:  # type: ignore[override]
        hidden, items, targets, *rest = ctx.saved_tensors
        bias, gradients = (rest[0], rest[1:]) if ctx.biased else (None, rest)
        first = weights[:1] if len(weights) else weights.new_zeros(1)
        if bool((weights == first).all()):
            ready = [gradient * first for gradient in gradients]
        else:
            _, *ready = _sweep(hidden, items, targets, bias, weights, ctx.type, True)
        return ready[0], ready[1], None, ready[2] if ctx.biased else None


_by_strips = left_alone(_CatalogueSoftmax.apply)


def _sweep(
    hidden: Tensor,
    items: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    weights: Tensor | None,
    kind: torch.dtype,
    wanted: bool,
) -> tuple[Tensor, ...]:
    """Losses [M] and, where wanted, the gradients of their sum, weighed by `weights` [M]: hidden, items, bias."""
    device, n_items = hidden.device, len(items)
    losses = torch.empty(len(hidden), dtype=torch.float32, device=device)
    by_hidden = torch.empty_like(hidden) if wanted else None
    by_items = torch.zeros(items.shape, dtype=torch.float32, device=device) if wanted else None
    by_bias = torch.zeros_like(bias) if wanted and bias is not None else None
    rows_a_strip = min(
        max(1, len(hidden)), max(items.shape[1], CELLS.get(device.type, CELLS_ELSEWHERE) // max(1, n_items))
    )
    strip = torch.empty(rows_a_strip, n_items, dtype=kind, device=device)
    cast, start_at = items.to(kind), None if bias is None else bias.to(kind)
    for start in range(0, len(hidden), rows_a_strip):
        rows = slice(start, start + rows_a_strip)
        left, told = hidden[rows].to(kind), targets[rows, None]
        scores = strip[: len(left)]
        if start_at is None:
            torch.mm(left, cast.T, out=scores)
        else:
            torch.addmm(start_at, left, cast.T, out=scores)
        most, mine = scores.amax(dim=1).float(), scores.gather(1, told).squeeze(1).float()
        shares = torch.softmax(scores, dim=1, dtype=torch.float32)
        losses[rows] = most - mine - shares.amax(dim=1).log_()  # the largest share is 1 / sum of exp(score - most)
        if by_hidden is None or by_items is None:
            continue
        shares.scatter_add_(1, told, shares.new_full(told.shape, -1.0))
        if weights is not None:
            shares.mul_(weights[rows, None])
        if by_bias is not None:
            by_bias += shares.sum(dim=0)
        shares = shares.to(kind)
        by_hidden[rows] = shares @ cast
        if kind == torch.float32:
            by_items.addmm_(shares.T, left)
        else:
            by_items += shares.T @ left
    found = (by_hidden, None if by_items is None else by_items.to(items.dtype), by_bias)
    return (losses, *(gradient for gradient in found if gradient is not None))


def _autocast(x: Tensor) -> torch.dtype:
    """The type in which products are made."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
