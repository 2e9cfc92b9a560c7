"""Cross-entropy over a whole catalogue without its table of scores.

Scores are made for a strip of rows at a time and are still in the cache when they are turned into losses and their
gradients. A strip takes a fixed size, or that of 64 rows where this is larger, however many rows there are.
`F.cross_entropy(hidden @ items.T + bias, targets, reduction="none")` is the reference.

M rows, I items, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tastemaker.nn.compiling import LeftAlone

CELLS = {"cpu": 1 << 18}  # scores of one strip: 1 MB, so that they stay in the cache
ROWS = 64  # of a strip at least: products of fewer are slow
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


_by_strips = LeftAlone(_CatalogueSoftmax.apply)


def _sweep(
    hidden: Tensor,
    items: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    weights: Tensor | None,
    kind: torch.dtype,
    wanted: bool,
) -> tuple[Tensor, ...]:
    """Losses [M] and, where wanted, the gradients of their sum, weighed by `weights` [M]: hidden, items, bias.

    A strip holds a column for each row: long and narrow, as processors multiply fastest. Its exponentials are never
    divided by their sums [R]: what they are multiplied with is.
    """
    device, n_items = hidden.device, len(items)
    losses = torch.empty(len(hidden), dtype=torch.float32, device=device)
    by_hidden = torch.empty_like(hidden) if wanted else None
    by_items = torch.zeros(items.shape, dtype=torch.float32, device=device) if wanted else None
    by_bias = torch.zeros_like(bias) if wanted and bias is not None else None
    n_rows = min(max(1, len(hidden)), max(ROWS, CELLS.get(device.type, CELLS_ELSEWHERE) // max(1, n_items)))
    strip = torch.empty(n_items * n_rows, dtype=kind, device=device)
    cast, start_at = items.to(kind), None if bias is None else bias.to(kind).unsqueeze(1)
    for start in range(0, len(hidden), n_rows):
        rows = slice(start, start + n_rows)
        left, told = hidden[rows].to(kind), targets[rows]
        scores = strip[: n_items * len(left)].view(n_items, len(left))
        torch.mm(cast, left.T, out=scores)
        if start_at is not None:
            scores += start_at
        mine = scores.gather(0, told.unsqueeze(0)).squeeze(0).float()
        most = scores.amax(dim=0)
        grown = scores.sub_(most).exp_() if kind == torch.float32 else scores.float().sub_(most).exp_()
        total = grown.sum(dim=0)
        losses[rows] = total.log() + most.float() - mine
        if by_hidden is None or by_items is None:
            continue
        weight = torch.ones_like(total) if weights is None else weights[rows]
        share = (weight / total).unsqueeze(1)
        grown = grown.to(kind)
        by_hidden[rows] = (grown.T @ cast) * share - cast[told] * weight.unsqueeze(1)
        scaled = (left * share).to(kind)
        if kind == torch.float32:
            by_items.addmm_(grown, scaled)
        else:
            by_items += grown @ scaled
        by_items.index_add_(0, told, (left * weight.unsqueeze(1)).float(), alpha=-1)
        if by_bias is not None:
            by_bias += (grown @ share.to(kind)).squeeze(1)
            by_bias.index_add_(0, told, weight.to(by_bias.dtype), alpha=-1)
    found = (by_hidden, None if by_items is None else by_items.to(items.dtype), by_bias)
    return (losses, *(gradient for gradient in found if gradient is not None))


def _autocast(x: Tensor) -> torch.dtype:
    """The type in which products are made."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
